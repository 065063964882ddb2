//! The answers to probes: `/livez` and `/readyz`. They have no names, as everybody may read them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use tidings_service::telemetry::{Finding, HealthReason, Severity};

use crate::sources::ServiceReading;

/// The question of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Live,
    Ready,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Verbose,
    Json,
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) passed: bool,
    pub(crate) body: String,
}

#[derive(Debug, Serialize)]
struct Json {
    status: &'static str,
    services: Vec<JsonService>,
}

#[derive(Debug, Serialize)]
struct JsonService {
    /// From 1, in the order of `with_service`.
    service: usize,
    status: &'static str,
    standby: bool,
    reasons: Vec<JsonReason>,
}

/// A reason, as all JSON answers show it.
#[derive(Debug, Serialize)]
pub(crate) struct JsonReason {
    reason: &'static str,
    severity: &'static str,
    seconds: f64,
}

impl From<&Finding> for JsonReason {
    fn from(finding: &Finding) -> Self {
        let severity = match finding.severity {
            Severity::NotLive => "not_live",
            Severity::NotReady => "not_ready",
            Severity::Degraded => "degraded",
        };
        Self { reason: finding.reason.as_str(), severity, seconds: finding.lasted.as_secs_f64() }
    }
}

impl Probe {
    pub(crate) fn answer(self, services: &[ServiceReading], form: Form) -> Answer {
        let passed = services.iter().all(|service| self.passes(service));
        let body = match form {
            Form::Text => format!("{}\n", self.summary(services, passed)),
            Form::Verbose => self.verbose(services, passed),
            Form::Json => self.json(services, passed),
        };
        Answer { passed, body }
    }

    fn passes(self, service: &ServiceReading) -> bool {
        match self {
            Self::Live => service.health.live,
            Self::Ready => service.health.ready,
        }
    }

    /// Returns the findings that the probe asks for.
    fn findings(self, service: &ServiceReading) -> impl Iterator<Item = &Finding> {
        let concerns = move |reason: HealthReason| self == Self::Ready || reason.severity() == Severity::NotLive;
        service.health.findings.iter().filter(move |finding| concerns(finding.reason))
    }

    /// Returns the status and the reasons of all services.
    fn summary(self, services: &[ServiceReading], passed: bool) -> String {
        let reasons: BTreeSet<HealthReason> =
            services.iter().flat_map(|service| self.findings(service)).map(|finding| finding.reason).collect();
        let reasons: Vec<&str> = reasons.into_iter().map(HealthReason::as_str).collect();
        match (passed, reasons.is_empty()) {
            (true, true) => "ok".to_owned(),
            (true, false) => format!("degraded: {}", reasons.join(", ")),
            (false, _) => format!("{}: {}", self.word(false), reasons.join(", ")),
        }
    }

    fn verbose(self, services: &[ServiceReading], passed: bool) -> String {
        let mut text = String::new();
        for (number, service) in services.iter().enumerate() {
            let passes = self.passes(service);
            let reasons = self.findings(service).map(|finding| {
                let seconds = finding.lasted.as_secs();
                format!("{} for {seconds} s", finding.reason)
            });
            let words = [self.word(passes), if service.health.standby { "standby" } else { "" }];
            let words: Vec<String> =
                words.into_iter().filter(|word| !word.is_empty()).map(String::from).chain(reasons).collect();
            let sign = if passes { '+' } else { '-' };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[{sign}] service {}: {}", number + 1, words.join(", "));
        }
        text + &self.summary(services, passed) + "\n"
    }

    fn json(self, services: &[ServiceReading], passed: bool) -> String {
        let service = |(number, service): (usize, &ServiceReading)| JsonService {
            service: number + 1,
            status: self.status(self.passes(service), self.findings(service).next().is_some()),
            standby: service.health.standby,
            reasons: self.findings(service).map(JsonReason::from).collect(),
        };
        let is_degraded = services.iter().any(|service| self.findings(service).next().is_some());
        let status = self.status(passed, is_degraded);
        let json = Json { status, services: services.iter().enumerate().map(service).collect() };
        // Texts and finite numbers can always be written.
        serde_json::to_string(&json).unwrap_or_default()
    }

    const fn word(self, passed: bool) -> &'static str {
        match (self, passed) {
            (Self::Live, true) => "live",
            (Self::Live, false) => "not live",
            (Self::Ready, true) => "ready",
            (Self::Ready, false) => "not ready",
        }
    }

    const fn status(self, passed: bool, is_degraded: bool) -> &'static str {
        match (self, passed, is_degraded) {
            (Self::Live, true, _) => "live",
            (Self::Live, false, _) => "not_live",
            (Self::Ready, true, true) => "degraded",
            (Self::Ready, true, false) => "ready",
            (Self::Ready, false, _) => "not_ready",
        }
    }
}
