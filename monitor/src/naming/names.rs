//! What the sources know by now, for whoever cannot wait for more.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribute::{self, Asked, Clues, Rules};
use crate::containers::pods::{PodInfo, Pods};
use crate::containers::systemd::Invocations;
use crate::containers::{Info, Lookup, Registry};
use crate::death::{Job, Missing, Workload};

/// All that knows names.
#[derive(Debug)]
pub struct Names {
    /// What the runtimes said.
    pub registry: Arc<Registry>,
    /// What the Kubernetes API said.
    pub pods: Arc<Pods>,
    /// How a job is found.
    pub rules: Rules,
    /// The labels and annotations that records show.
    pub asked: Asked,
    /// systemd's names of the runs of a unit.
    pub invocations: Invocations,
}

/// What a workload was named by, beside what is in it now.
pub(super) struct Named {
    info: Option<Arc<Info>>,
    pod: Option<Arc<PodInfo>>,
    /// Why it has no names, if a source owes them.
    pub(super) missing: Option<Missing>,
}

impl Names {
    /// What a cgroup's path says, as far as what the sources know lets it be believed.
    #[must_use]
    pub fn workload(&self, path: Option<&str>, cgroup_id: Option<u64>) -> Workload {
        let knows = |id: &str| matches!(self.registry.lookup(id), Lookup::Known(_));
        attribute::workload_among(path, cgroup_id, knows)
    }

    /// A cgroup's workload and job by what is known now. Asks nobody; `tags` are those of its processes.
    #[must_use]
    pub fn now(
        &self,
        path: &str,
        cgroup_id: u64,
        tags: &BTreeMap<String, String>,
    ) -> (Workload, Option<Job>) {
        let mut workload = self.workload(Some(path), Some(cgroup_id));
        let found = self.find(&workload);
        let uid = match &found {
            Lookup::Known(info) => info.pod_uid.as_deref(),
            Lookup::Pending | Lookup::Unknown => None,
        };
        let pod = uid.map_or(Lookup::Unknown, |uid| self.pods.lookup(uid));
        let named = self.finish(&mut workload, found, pod);
        let job = self.job(&named, &workload, tags, &BTreeMap::new());
        (workload, job)
    }

    pub(super) fn find(&self, workload: &Workload) -> Lookup<Info> {
        bare_id(workload).map_or(Lookup::Unknown, |id| self.registry.lookup(id))
    }

    /// Puts the names into the workload.
    pub(super) fn finish(
        &self,
        workload: &mut Workload,
        found: Lookup<Info>,
        pod: Lookup<PodInfo>,
    ) -> Named {
        let (info, missing) = match found {
            Lookup::Known(info) if attribute::named(workload, &info, &self.asked) => {
                (Some(info), None)
            }
            Lookup::Known(_) => {
                let why = "the container that its cgroup is called like belongs to another pod";
                let field = "workload.container".to_owned();
                (None, Some(Missing { field, why: why.to_owned() }))
            }
            Lookup::Pending | Lookup::Unknown => (None, self.why_nameless(workload)),
        };
        self.invocations.name(workload);
        let pod = match pod {
            // Of what both say, the API has it as it is now, and the runtime as it was when the pod was made.
            Lookup::Known(pod) if info.is_some() => {
                attribute::owned(workload, &pod, &self.asked);
                Some(pod)
            }
            _ => None,
        };
        Named { info, pod, missing }
    }

    /// The job, from all that may say it.
    pub(super) fn job(
        &self,
        named: &Named,
        workload: &Workload,
        tags: &BTreeMap<String, String>,
        environ: &BTreeMap<String, String>,
    ) -> Option<Job> {
        let none = BTreeMap::new();
        let of_pod = named.pod.as_ref().map(|pod| (&pod.labels, &pod.annotations));
        let of_info = named.info.as_ref().map(|info| (&info.labels, &info.annotations));
        let (labels, annotations) = of_pod.or(of_info).unwrap_or((&none, &none));
        let path = workload.cgroup.as_deref();
        self.rules.job(&Clues { tags, labels, annotations, path, environ })
    }

    /// Of a container that a source would name if it answered, which did not and why.
    fn why_nameless(&self, workload: &Workload) -> Option<Missing> {
        bare_id(workload)?;
        let owes = self.registry.why_not(workload.runtime.as_deref())?;
        Some(Missing { field: "workload.container".to_owned(), why: owes })
    }
}

/// The container's id without its runtime.
pub(super) fn bare_id(workload: &Workload) -> Option<&str> {
    let id = workload.container_id.as_deref()?;
    Some(id.split_once("://").map_or(id, |(_, bare)| bare))
}
