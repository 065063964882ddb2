//! Guarantees: the numbered clauses that a backend keeps.
//!
//! The docs of a trait number its promises (P for publishers, C for consumers, I for idempotency stores, D for dead
//! letters, A for admins, T for audit sinks, L for log readers, X for transactors). A backend keeps all of them except
//! those that it names, with a reason, in its `guarantees()`. The conformance suites run a case for each clause that is
//! kept and report the others as ignored, so a clause that is added later fails in every backend until it is met or
//! named.

use std::borrow::Cow;
use std::fmt;

macro_rules! clauses { ($($name:ident $id:literal $text:literal,)*) => {
    /// A numbered promise of a trait; the traits' docs state it in full.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    #[non_exhaustive]
    pub enum Clause { $( #[doc = $text] $name, )* }

    impl Clause {
        /// All clauses.
        pub const ALL: &[Self] = &[$(Self::$name),*];

        /// Returns the clause's short name, such as `c3`, with which the names of its conformance cases begin.
        pub const fn id(self) -> &'static str {
            match self { $(Self::$name => $id),* }
        }

        /// Returns a summary of the clause in one line.
        pub const fn text(self) -> &'static str {
            match self { $(Self::$name => $text),* }
        }
    }
} }

clauses! {
    P1 "p1" "Outcome `i` is record `i`'s; one record's failure is not its neighbour's.",
    P2 "p2" "`Ok` means that the broker holds the record; what may or may not be held is `Indeterminate`.",
    P3 "p3" "The same key goes to the same partition, in the order of the calls.",
    P4 "p4" "Memory is bounded: at the bound `publish` waits; after `close` it is refused.",
    P5 "p5" "Null values, empty keys, duplicate and null headers survive byte for byte.",
    C1 "c1" "A partition's records come in offset order from the committed offset, else by the start policy.",
    C2 "c2" "Records of a partition come only between its `Assigned` and its `release` or `Lost`.",
    C3 "c3" "Commits are taken until a revocation ends, and fenced afterwards.",
    C4 "c4" "A commit names the next offset to read; nothing is committed unasked, nothing goes back.",
    C5 "c5" "A paused partition yields nothing; membership lives while handlers work.",
    C6 "c6" "`next` is cancel-safe.",
    C7 "c7" "`close` leaves the group at once.",
    C8 "c8" "Bytes that cannot be read hold their partition alone.",
    C9 "c9" "`is_member` is true once the group has accepted the member, and no longer than that lasts.",
    I1 "i1" "One lease per scope and event.",
    I2 "i2" "`Done` until purged.",
    I3 "i3" "Claims live as long as their lease.",
    I4 "i4" "Durable before it returns.",
    I5 "i5" "A store that can't answer says so.",
    I6 "i6" "A grant tells how many leases expired with the event, and how many attempts were released.",
    I7 "i7" "`Done` is written only by `complete` or within a handler's transaction.",
    I8 "i8" "`done` tells which events are done, and changes nothing.",
    D1 "d1" "`Ok` means that the letter is durable.",
    D2 "d2" "The original is kept byte for byte, with the cause of its burial.",
    D3 "d3" "A letter buried twice is listed and redriven once.",
    D4 "d4" "A letter is leased to one redrive at a time, before it is published.",
    D5 "d5" "A parked letter stays, and only a query for parked letters selects it.",
    D6 "d6" "A closed letter stays listed with its resolution, until it is purged.",
    A1 "a1" "Admin verbs do what they say, name what is missing, and lose nothing unasked.",
    T1 "t1" "`Ok` means that the audit record is durable, and records are stored in their order.",
    T2 "t2" "An audit record is kept byte for byte, and never replaced.",
    T3 "t3" "An audit record that is appended again is stored once, or as identical records.",
    T4 "t4" "Reading yields each audit record, page by page, in the order of its chain.",
    L1 "l1" "A log is read by position: each record once, in order, as a consumer reads it.",
    L2 "l2" "Reading a log changes nothing on the broker.",
    L3 "l3" "A read keeps its limits, and waits at the end of the log.",
    L4 "l4" "Records that are gone are shown, and an offset beyond the end is refused.",
    L5 "l5" "Bytes that cannot be read are reported with their offset, and a read behind them goes on.",
    X1 "x1" "A transaction's records and offsets become visible together, or not at all.",
    X2 "x2" "Committed readers see no record of an open or aborted transaction, and nothing behind an open one.",
    X3 "x3" "A newer transactor of an id fences the earlier one.",
    X4 "x4" "Offsets of a member that lost their partition abort the whole transaction.",
    X5 "x5" "A transaction that is open for too long is aborted.",
    Restart "restart" "What is acknowledged survives a restart of the process and its machine.",
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// The clauses that a backend keeps: all but those that it disclaims, each with its reason.
///
/// The conformance suites run the promised clauses and report the others as ignored.
///
/// ```
/// use tidings_core::{Clause, Guarantees};
///
/// let guarantees = Guarantees::all().without(Clause::Restart, "everything is in memory");
/// assert!(guarantees.keeps(Clause::P1) && !guarantees.keeps(Clause::Restart));
/// assert_eq!(guarantees.why_not(Clause::Restart), Some("everything is in memory"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guarantees {
    disclaimed: Vec<(Clause, Cow<'static, str>)>,
    shared: bool,
}

impl Guarantees {
    /// Creates guarantees of every clause, for a backend used by one process.
    pub const fn all() -> Self {
        Self { disclaimed: Vec::new(), shared: false }
    }

    /// Disclaims `clause`, because of `reason`, which is one line for the report of the conformance suite.
    #[must_use]
    pub fn without(mut self, clause: Clause, reason: impl Into<Cow<'static, str>>) -> Self {
        self.disclaimed.push((clause, reason.into()));
        self
    }

    /// Disclaims transactions, X1 to X5, because of `reason`, for a transport whose
    /// [`transactor`](crate::Transport::transactor) is unsupported.
    ///
    /// ```
    /// use tidings_core::{Clause, Guarantees};
    ///
    /// let guarantees = Guarantees::all().without_transactions("the broker has none");
    /// assert!(guarantees.keeps(Clause::L5) && !guarantees.keeps(Clause::X1) && !guarantees.keeps(Clause::X5));
    /// ```
    #[must_use]
    pub fn without_transactions(self, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        let of_transactors = Clause::ALL.iter().filter(|clause| clause.id().starts_with('x'));
        of_transactors.fold(self, |kept, clause| kept.without(*clause, reason.clone()))
    }

    /// Sets whether the backend is shared by several processes. Default: `false`.
    ///
    /// A service warns at its start if its transport is shared and its store is not: each instance then knows only the
    /// events that it has handled itself.
    #[must_use]
    pub fn with_shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Returns whether `clause` is promised.
    pub fn keeps(&self, clause: Clause) -> bool {
        self.why_not(clause).is_none()
    }

    /// Returns why `clause` is not promised; `None` if it is.
    pub fn why_not(&self, clause: Clause) -> Option<&str> {
        self.disclaimed.iter().find(|(c, _)| *c == clause).map(|(_, why)| why.as_ref())
    }

    /// Returns whether several processes share the backend.
    pub fn is_shared(&self) -> bool {
        self.shared
    }
}
