//! End-to-end tests: real kills by the real kernel, and the records that killwatch makes of them.
//!
//! A scenario (`tests/scenarios/`) causes one death on purpose, so it knows the truth, and holds the whole record to it.
//!
//! * [`corpus`] is the table that scenarios are entered in, what each needs, and the run; [`matrix`] counts causes caused × reported.
//! * [`stage`] is what a scenario plays on: a daemon, shared or its own, cgroups of its own, and the rule when to skip.
//! * [`daemon`] runs killwatch and asks it; every record that it hands out has passed docs/death.schema.json.
//! * [`cgroup`] makes limited cgroups on v1, v2 and hybrid hosts, and removes them.
//! * [`runc`] runs containers by a real runtime, [`engine`] by a real Podman or Docker, [`slurm`] jobs by a real batch system.
//! * [`containerd`] runs pods as a kubelet does, over [`cri`]; [`fake_cri`] is a mock of CRI that answers in bad ways too.
//! * [`dashboards`] reads the dashboards that are shipped, [`preview`] draws what they show.
//! * [`manifest`] is what kustomize makes of deploy/kubernetes, and a container of it as a kubelet asks for one.
//! * [`disk`] is a small disk that can be filled.
//! * [`receiver`] is a mock of who is told of deaths by HTTP; [`served`] runs a real Prometheus and a real Alertmanager.
//! * [`victim`] runs the `victim` binary; [`truth`] reads what the kernel says of it while it lives.
//! * [`sender`] is who sent a signal. [`facts`] turns a truth into what the record must say, [`record`] compares and reports every difference at once.
//! * [`kernel_log`] is what the kernel writes there; [`http`] asks a server, [`metrics`] reads the metrics page, [`wait`] is the only way to wait: for a state, with a deadline.
//!
//! What the environment may set:
//!
//! | variable | meaning |
//! |---|---|
//! | `KILLWATCH_BIN` | the daemon; default `target/release/killwatch` of the workspace |
//! | `KILLWATCH_VICTIM` | the `victim` binary; default the one that cargo built |
//! | `KILLWATCH_SCHEMA` | the JSON Schema; default docs/death.schema.json of the workspace |
//! | `KILLWATCH_SCREENSHOTS` | a directory that the test of the pages keeps pictures in (base64 of PNG); no default |
//! | `KILLWATCH_REQUIRE_E2E=1` | a scenario that cannot run is a failure, not a skip |
//! | `KILLWATCH_EARLYOOM` | the program earlyoom; no default |
//! | `KILLWATCH_OOMD_CGROUP` | directory of a cgroup whose children systemd-oomd kills under pressure, and which is limited; no default |
//! | `KILLWATCH_SYSTEMD=1` | the first process is a systemd, which may be asked for units |
//! | `KILLWATCH_ROUNDS`, `KILLWATCH_SEED` | how often the scenarios of `survives` kill the daemon, 8 by default, and when: the seed of a run is printed |
//! | `KILLWATCH_VM_LOCKDOWN=1` | the kernel is locked down to confidentiality |
//! | `KILLWATCH_VM=1` | this is a virtual machine of our own: deadlines ×10, and the host's memory may be used up |
#![forbid(unsafe_code)]

pub mod asker;
pub mod bpffs;
pub mod cgroup;
pub mod containerd;
pub mod corpus;
pub mod cri;
pub mod daemon;
pub mod dashboards;
pub mod disk;
pub mod engine;
pub mod facts;
pub mod fake_cri;
pub mod http;
pub mod kernel_log;
mod launch;
mod leftovers;
pub mod manifest;
pub mod matrix;
pub mod metrics;
pub mod preview;
pub mod receiver;
pub mod record;
pub mod runc;
pub mod schema;
pub mod sender;
pub mod served;
pub mod slurm;
pub mod stage;
pub mod truth;
pub mod victim;
pub mod wait;
