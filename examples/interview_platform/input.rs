//! Reading the input, and what each of its events means on the platform.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tidings::BoxError;
use tidings::record::Timestamp;
use uuid::Uuid;

use crate::events::{
    InterviewCompleted, InterviewScored, InterviewStarted, PlatformEvent, Profile, UserActivityTracked,
    UserAuthenticated, UserLoggedOut, UserProfileUpdated, UserRegistered,
};
use crate::options::Member;

/// The namespace of this platform's event ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f2c_5f0e_1d3b_5a7e_9c41_60b7_2a9d_e315);

/// A line of the input.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    id: u64,
    #[serde(rename = "type")]
    event_type: String,
    student: u64,
    module: String,
    presentation: String,
    day: i64,
    nominal_date: String,
    payload: Assessment,
    /// The namespace of the event ids of this round, in a steady load.
    #[serde(skip)]
    round: Option<Uuid>,
}

#[derive(Debug, Deserialize)]
struct Assessment {
    assessment: Option<u64>,
    kind: Option<String>,
    weight: Option<f64>,
    score: Option<f64>,
}

/// An event that a service is to publish.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) by: Member,
    pub(crate) id: Uuid,
    pub(crate) timestamp: Timestamp,
    pub(crate) event: PlatformEvent,
}

/// How far reading is, in bytes of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    read: Arc<AtomicU64>,
    size: Arc<AtomicU64>,
}

impl Progress {
    /// From 0 to 1.
    pub(crate) fn fraction(&self) -> f64 {
        let (read, size) = (self.read.load(Ordering::Relaxed), self.size.load(Ordering::Relaxed));
        if size == 0 { 0.0 } else { read as f64 / size as f64 }
    }
}

struct Counted<R> {
    inner: R,
    progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.progress.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Opens `path` for its lines; gzip is told by its first bytes.
pub(crate) fn open(
    path: &Path,
    progress: &Progress,
) -> Result<impl Iterator<Item = Result<Line, BoxError>> + use<>, BoxError> {
    let named = |e: io::Error| format!("--input {}: {e}", path.display());
    let file = File::open(path).map_err(named)?;
    progress.read.store(0, Ordering::Relaxed);
    progress.size.store(file.metadata().map_err(named)?.len(), Ordering::Relaxed);
    let mut counted = BufReader::new(Counted { inner: file, progress: progress.clone() });
    // Looked at and left where it is: a pipe can't be rewound.
    let gzip = counted.fill_buf().map_err(named)?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn BufRead + Send> =
        if gzip { Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(counted))) } else { Box::new(counted) };
    let name = path.display().to_string();
    Ok(reader.lines().enumerate().map(move |(number, line)| {
        let place = |e: BoxError| format!("--input {name}: line {}: {e}", number + 1);
        let line = line.map_err(|e| place(e.into()))?;
        Ok(serde_json::from_str(&line).map_err(|e| place(e.into()))?)
    }))
}

/// Opens `path` again and again, each time with other ids for its events.
pub(crate) fn over_and_over(path: PathBuf, progress: Progress) -> impl Iterator<Item = Result<Line, BoxError>> {
    std::iter::repeat_with(move || {
        let round = Some(Uuid::now_v7());
        let (mut lines, mut error) = match open(&path, &progress) {
            Ok(lines) => (Some(lines.peekable()), None),
            Err(error) => (None, Some(Err(error))),
        };
        if lines.as_mut().is_some_and(|lines| lines.peek().is_none()) {
            error = Some(Err(format!("--input {}: no events", path.display()).into()));
        }
        error.into_iter().chain(lines.into_iter().flatten().map(move |line| Ok(Line { round, ..line? })))
    })
    .flatten()
}

/// The meaning of the input to the services: a registration is one, an assessment is an interview.
///
/// The input has no sessions. Signing in is taken to be part of registering and of sitting an exam, where identity is
/// checked; other assessments are activity that the gateway sees.
#[derive(Debug, Default)]
pub(crate) struct Platform {
    seen: HashSet<u64>,
}

impl Platform {
    pub(crate) fn publications(&mut self, line: &Line) -> Vec<Publication> {
        match line.event_type.as_str() {
            "student.registered" => self.registration(line),
            "assessment.exam.submitted" => exam(line),
            "assessment.banked" => interview(line),
            _ => submission(line),
        }
    }

    fn registration(&mut self, line: &Line) -> Vec<Publication> {
        let user_id = line.student.to_string();
        let email = format!("{user_id}@students.example");
        let profile = Profile {
            module: line.module.clone(),
            presentation: line.presentation.clone(),
            enrolled_on: line.nominal_date.clone(),
        };
        let mut all =
            vec![line.publication(Member::ApiGateway, PlatformEvent::Authenticated(line.sign_in("password")))];
        if !self.seen.insert(line.student) {
            let event = UserProfileUpdated { user_id: user_id.clone(), profile: profile.clone() };
            all.push(line.publication(Member::UserService, PlatformEvent::ProfileUpdated(event)));
        }
        let event = UserRegistered { user_id, email, profile };
        all.push(line.publication(Member::UserService, PlatformEvent::Registered(event)));
        all
    }
}

fn submission(line: &Line) -> Vec<Publication> {
    let event = UserActivityTracked {
        user_id: line.student.to_string(),
        activity: line.event_type.clone(),
        module: line.module.clone(),
        day: line.day,
    };
    let mut all = vec![line.publication(Member::ApiGateway, PlatformEvent::ActivityTracked(event))];
    all.append(&mut interview(line));
    all
}

fn exam(line: &Line) -> Vec<Publication> {
    let user_id = line.student.to_string();
    let sign_in = line.sign_in("proctored");
    let session_id = sign_in.session_id.clone();
    let mut all = vec![line.publication(Member::ApiGateway, PlatformEvent::Authenticated(sign_in))];
    let event = InterviewStarted { user_id: user_id.clone(), interview_id: line.interview_id(), kind: line.kind() };
    all.push(line.publication(Member::InterviewService, PlatformEvent::Started(event)));
    all.append(&mut interview(line));
    let event = UserLoggedOut { user_id, session_id };
    all.push(line.publication(Member::ApiGateway, PlatformEvent::LoggedOut(event)));
    all
}

/// An interview that is over, and its score if there is one.
fn interview(line: &Line) -> Vec<Publication> {
    let (user_id, interview_id) = (line.student.to_string(), line.interview_id());
    let event = InterviewCompleted {
        user_id: user_id.clone(),
        interview_id: interview_id.clone(),
        kind: line.kind(),
        completed_on: line.nominal_date.clone(),
    };
    let mut all = vec![line.publication(Member::InterviewService, PlatformEvent::Completed(event))];
    if let Some(score) = line.payload.score {
        let weight = line.payload.weight.unwrap_or_default();
        let event = InterviewScored { user_id, interview_id, score, weight };
        all.push(line.publication(Member::InterviewService, PlatformEvent::Scored(event)));
    }
    all
}

impl Line {
    fn publication(&self, by: Member, event: PlatformEvent) -> Publication {
        // From the input, and not drawn: the same event has the same id in every run, unless the load is steady.
        let namespace = self.round.unwrap_or(NAMESPACE);
        let id = Uuid::new_v5(&namespace, format!("{}/{}", self.id, event.address().1).as_bytes());
        let nominal = || midnight(&self.nominal_date).unwrap_or_default();
        let timestamp = if self.round.is_some() { Timestamp::now() } else { nominal() };
        Publication { by, id, timestamp, event }
    }

    fn sign_in(&self, method: &str) -> UserAuthenticated {
        UserAuthenticated {
            user_id: self.student.to_string(),
            auth_method: method.to_owned(),
            session_id: Uuid::new_v5(&NAMESPACE, format!("{}/session", self.id).as_bytes()).to_string(),
            ip_address: None,
        }
    }

    fn interview_id(&self) -> String {
        format!("{}-{}", self.payload.assessment.unwrap_or_default(), self.student)
    }

    fn kind(&self) -> String {
        self.payload.kind.clone().unwrap_or_default()
    }
}

/// The id of a further record about the same thing.
pub(crate) fn derived(id: Uuid, what: &str) -> Uuid {
    Uuid::new_v5(&id, what.as_bytes())
}

/// The start of a day such as `2013-01-24`, UTC.
///
/// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
fn midnight(date: &str) -> Option<Timestamp> {
    let mut parts = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(Timestamp::from_millis(days * 86_400_000))
}
