//! The user service: who is registered, signed in, and how they do in interviews.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings::{BoxError, Router, State, reject};

use crate::events::{
    InterviewCompleted, InterviewScored, Profile, UserAuthenticated, UserLoggedOut, UserProfileUpdated, UserRegistered,
};

/// The service's state: in the memory of the process, as its group's only member handles all users.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<HashMap<String, User>>);

#[derive(Debug, Default)]
struct User {
    email: Option<String>,
    profiles: Vec<Profile>,
    session: Option<String>,
    sign_ins: u32,
    interviews: u32,
    scores: u32,
    total_score: f64,
}

pub(crate) fn router(users: Arc<Users>) -> Router {
    let router = Router::new().on(signed_in).on(registered).on(signed_out).on(updated).on(completed).on(scored);
    super::failing_on_poison(router).with_state(users)
}

async fn registered(event: UserRegistered, State(users): State<Arc<Users>>) -> Result<(), BoxError> {
    if !event.email.contains('@') {
        // No retry would mend it.
        return Err(reject(format!("register {}: {:?} is no address", event.user_id, event.email)).into());
    }
    let mut users = users.lock();
    let user = users.entry(event.user_id).or_default();
    user.email = Some(event.email);
    user.enrol(event.profile);
    Ok(())
}

async fn updated(event: UserProfileUpdated, State(users): State<Arc<Users>>) {
    users.lock().entry(event.user_id).or_default().enrol(event.profile);
}

async fn signed_in(event: UserAuthenticated, State(users): State<Arc<Users>>) {
    let mut users = users.lock();
    let user = users.entry(event.user_id).or_default();
    user.sign_ins += 1;
    user.session = Some(event.session_id);
}

async fn signed_out(event: UserLoggedOut, State(users): State<Arc<Users>>) {
    if let Some(user) = users.lock().get_mut(&event.user_id)
        && user.session.as_ref() == Some(&event.session_id)
    {
        user.session = None;
    }
}

// An interview may come before its user's registration: of one user events are ordered within a topic, not across them.
async fn completed(event: InterviewCompleted, State(users): State<Arc<Users>>) {
    users.lock().entry(event.user_id).or_default().interviews += 1;
}

async fn scored(event: InterviewScored, State(users): State<Arc<Users>>) {
    let mut users = users.lock();
    let user = users.entry(event.user_id).or_default();
    user.scores += 1;
    user.total_score += event.score;
}

impl Users {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, User>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self) -> String {
        let users = self.lock();
        let registered = users.values().filter(|user| user.email.is_some()).count();
        let several = users.values().filter(|user| user.profiles.len() > 1).count();
        let signed_in = users.values().filter(|user| user.session.is_some()).count();
        let sum = |of: fn(&User) -> u32| users.values().map(of).sum::<u32>();
        let (sign_ins, interviews, scores) = (sum(|u| u.sign_ins), sum(|u| u.interviews), sum(|u| u.scores));
        let mean = users.values().fold(0.0, |sum, user| sum + user.total_score) / f64::from(scores.max(1));
        format!(
            "{registered} users, {several} in several modules, {signed_in} signed in after {sign_ins} sign-ins; \
             {interviews} interviews, mean score {mean:.1}"
        )
    }
}

impl User {
    fn enrol(&mut self, profile: Profile) {
        if !self.profiles.contains(&profile) {
            self.profiles.push(profile);
        }
    }
}
