//! Which deaths a person means, and how the daemon is asked for them: for `why` and `bundle`.

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Api, Unanswered};
use super::deaths::encoded;
use super::{EX_UNAVAILABLE, complain};
use crate::config::Refused;
use crate::death::Death;

/// Deaths that are asked for: the newest is told, the others are mentioned.
const DEATHS: usize = 10;
/// Longest argument, bytes; the daemon takes no longer one.
const MAX: usize = 4096;
/// Most likely the daemon is of another version.
const FOREIGN: &str = "the answer is not one that this killwatch knows";

/// Whose death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A process, by its number on the node.
    Pid(u32),
    /// The record with this id; if there is none, the pod or the job with it.
    Id(Uuid),
    /// A pod, as `namespace/name` or uid.
    Pod(String),
    /// A container, by its id, the first 12 or more digits of it, or its name.
    Container(String),
    /// A job.
    Job(String),
    /// A container, or else a job.
    Name(String),
}

impl FromStr for Subject {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = || {
            Refused::new(
                "must be a process id such as 4242, the `id` of a record, a container's id or name, namespace/pod, or a job's id; pod:…, container:… and job:… leave no doubt",
            )
        };
        let pid = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok().filter(|pid| *pid > 0).map(Self::Pid))
        };
        if text.len() > MAX {
            return Err(refused());
        }
        // What follows such a word is what it says, whatever it looks like.
        let said = text.split_once(':').filter(|(_, rest)| !rest.is_empty());
        match said {
            Some(("pid", rest)) => return pid(rest).flatten().ok_or_else(refused),
            Some(("job", rest)) => return Ok(Self::Job(rest.to_owned())),
            Some(("container", rest)) => return Ok(Self::Container(rest.to_owned())),
            Some(("pod", rest)) if is_pod(rest) => return Ok(Self::Pod(rest.to_owned())),
            Some(("pod", _)) => return Err(refused()),
            _ => {}
        }
        if let Some(pid) = pid(text) {
            return pid.ok_or_else(refused);
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        if text.contains("://") {
            return Ok(Self::Container(text.to_owned()));
        }
        match text.split_once('/') {
            Some(_) if is_pod(text) => Ok(Self::Pod(text.to_owned())),
            // A flag that was written badly is no name.
            None if !text.is_empty() && !text.starts_with(['-', '+']) => {
                Ok(Self::Name(text.to_owned()))
            }
            _ => Err(refused()),
        }
    }
}

/// Whether it may be `namespace/name`, or a uid.
fn is_pod(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    parts.len() <= 2 && parts.iter().all(|part| !part.is_empty())
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "the process {pid} (if a job is meant: job:{pid})"),
            Self::Id(id) => write!(f, "the record, pod or job {id}"),
            Self::Pod(pod) => write!(f, "the pod {pod:?}"),
            Self::Container(container) => write!(f, "the container {container:?}"),
            Self::Job(job) => write!(f, "the job {job:?}"),
            Self::Name(name) => write!(f, "a container or job {name:?}"),
        }
    }
}

/// One request, and what its answer is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    path: String,
    /// What the deaths have in common.
    about: &'static str,
}

impl Subject {
    /// What is asked, one after the other until something is there.
    fn questions(&self) -> Vec<Question> {
        let by = |key: &str, value: &str, about| Question {
            path: format!("/api/v1/deaths?{key}={}&limit={DEATHS}", encoded(value)),
            about,
        };
        let of_pod = |pod: &str| by("pod", pod, "in this pod");
        let in_container = |name: &str| by("container", name, "in this container");
        let of_job = |job: &str| by("job", job, "of this job");
        match self {
            Self::Pid(pid) => vec![by("pid", &pid.to_string(), "with this pid")],
            Self::Id(id) => {
                let one = Question { path: format!("/api/v1/deaths/{id}"), about: "" };
                let id = id.to_string();
                vec![one, of_pod(&id), of_job(&id)]
            }
            Self::Pod(pod) => vec![of_pod(pod)],
            Self::Container(container) => vec![in_container(container)],
            Self::Job(job) => vec![of_job(job)],
            Self::Name(name) => vec![in_container(name), of_job(name)],
        }
    }
}

/// What is known.
#[derive(Debug)]
pub(super) struct Found {
    /// The newest record, byte for byte.
    pub(super) json: Box<RawValue>,
    /// The same.
    pub(super) death: Death,
    /// Those before it, newest first.
    pub(super) older: Vec<Death>,
    /// What they have in common.
    pub(super) about: &'static str,
}

/// Asks the daemon. `None` if it knows nothing of that.
pub(super) async fn find(api: &Api, subject: &Subject) -> Result<Option<Found>, Unanswered> {
    for Question { path, about } in subject.questions() {
        let Some(body) = api.get(&path).await? else { continue };
        let found = read(&body, about).context(FOREIGN).map_err(Unanswered::Foreign)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(body: &[u8], about: &'static str) -> anyhow::Result<Option<Found>> {
    #[derive(Deserialize)]
    struct Page {
        deaths: Vec<Box<RawValue>>,
    }
    let records = if about.is_empty() {
        vec![serde_json::from_slice(body)?]
    } else {
        serde_json::from_slice::<Page>(body)?.deaths
    };
    let mut records = records.into_iter();
    let Some(json) = records.next() else { return Ok(None) };
    let death = serde_json::from_str(json.get())?;
    let older = records.map(|json| serde_json::from_str(json.get())).collect::<Result<_, _>>()?;
    Ok(Some(Found { json, death, older, about }))
}

/// Says why there is no answer, and how the program ends then.
///
/// # Errors
/// If what answers is no daemon of this version.
pub(super) fn unanswered(api: &Api, error: Unanswered) -> anyhow::Result<ExitCode> {
    match error {
        Unanswered::Foreign(error) => return Err(error),
        Unanswered::Refused { .. } => complain(&format!("{api}: {error}")),
        Unanswered::Silence(_) => complain(&format!(
            "{api} does not answer: {error}; is `killwatch run` at work there? See --api; `killwatch deaths` reads what an ended daemon has kept"
        )),
    }
    Ok(ExitCode::from(EX_UNAVAILABLE))
}

/// Says that nothing is known.
pub(super) fn unknown(subject: &Subject) -> ExitCode {
    complain(&format!(
        "nothing is known of {subject}; it ended normally, before the daemon was started, or too long ago"
    ));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> Subject {
        text.parse().expect(text)
    }

    #[test]
    fn each_form_means_one_thing() {
        let (own, id) = (str::to_owned, Uuid::nil());
        for (text, meant) in [
            ("4242", Subject::Pid(4242)),
            ("pid:4242", Subject::Pid(4242)),
            (&id.to_string(), Subject::Id(id)),
            ("shop/web", Subject::Pod(own("shop/web"))),
            ("pod:u-1", Subject::Pod(own("u-1"))),
            ("4d6c1b2a3f4e", Subject::Name(own("4d6c1b2a3f4e"))),
            ("containerd://abc", Subject::Container(own("containerd://abc"))),
            ("container:123", Subject::Container(own("123"))),
            ("worker", Subject::Name(own("worker"))),
            ("job:4711", Subject::Job(own("4711"))),
            ("job:a/b:c", Subject::Job(own("a/b:c"))),
            ("x:y", Subject::Name(own("x:y"))),
        ] {
            assert_eq!(subject(text), meant, "{text}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "4294967296",
            "a/b/c",
            "/a",
            "a/",
            "pid:x",
            "pid:0",
            "pod:a/",
            "--x",
        ] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
        assert!("x".repeat(5000).parse::<Subject>().is_err());
    }

    #[test]
    fn a_name_is_asked_for_as_a_container_and_then_as_a_job() {
        let paths = |text: &str| -> Vec<String> {
            subject(text).questions().into_iter().map(|question| question.path).collect()
        };
        assert_eq!(
            paths("a b&limit=1"),
            [
                "/api/v1/deaths?container=a%20b%26limit%3D1&limit=10",
                "/api/v1/deaths?job=a%20b%26limit%3D1&limit=10"
            ]
        );
        let id = Uuid::nil();
        assert_eq!(paths(&id.to_string())[0], format!("/api/v1/deaths/{id}"));
        assert_eq!(paths("7"), ["/api/v1/deaths?pid=7&limit=10"]);
    }
}
