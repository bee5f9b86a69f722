//! What came, held against what may: the outcomes, the claims of one case, and what holds in every case.

use crate::case::{Case, Checked, Exchange, Observed, Outcome};
use crate::client::Trouble;
use crate::message::{Framing, Message, latin1};

/// What one case claims beside its outcome.
pub(crate) type Claim = Box<dyn Fn(&Observed) -> Checked + Send + Sync>;

/// Bytes of an origin's malformed answer that no client may ever see.
pub(crate) const RAW: &str = "RAWBYTES";

/// Holds what came against all that is right.
pub(crate) fn outcome(exchange: &Exchange, observed: &Observed) -> Checked {
    let told = |why: String| format!("{why}\n      {}", summary(observed));
    always(observed).map_err(told)?;
    let mut reasons = Vec::new();
    for &outcome in &exchange.outcomes {
        match one(exchange, observed, outcome) {
            Ok(()) => return Ok(()),
            Err(why) => reasons.push(format!("not {outcome:?}: {why}")),
        }
    }
    Err(told(reasons.join("\n      ")))
}

/// Fails with `why` unless it holds.
pub(crate) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(why()) }
}

/// Whether an answer says that its connection ends with it.
pub(crate) fn closes(answer: &Message) -> bool {
    answer.lists("connection", "close") || answer.framing == Framing::Close
}

/// What the origin must have got, and the client.
impl Case {
    /// The request line at the origin.
    pub(crate) fn sees_line(self, line: impl Into<String>) -> Case {
        let line = line.into();
        self.claim(move |observed| {
            let got = &first(&observed.seen.requests)?.start;
            ensure(*got == line, || format!("the origin saw {got:?}"))
        })
    }

    /// A field at the origin; repeated ones are joined with `|`.
    pub(crate) fn sees(self, name: &'static str, value: impl Into<String>) -> Case {
        let value = value.into();
        self.claim(move |observed| {
            let got = first(&observed.seen.requests)?.get(name);
            ensure(got.as_deref() == Some(&*value), || format!("the origin saw {name}: {got:?}"))
        })
    }

    pub(crate) fn sees_no(self, name: &'static str) -> Case {
        self.claim(move |observed| {
            let got = first(&observed.seen.requests)?.get(name);
            ensure(got.is_none(), || format!("the origin saw {name}: {got:?}"))
        })
    }

    pub(crate) fn sees_body(self, body: impl AsRef<[u8]>) -> Case {
        let body = body.as_ref().to_vec();
        self.claim(move |observed| {
            let got = &first(&observed.seen.requests)?.body;
            ensure(*got == body, || format!("the origin saw the body {}", shorten(got)))
        })
    }

    /// These fields at the origin, in this order, byte for byte.
    pub(crate) fn sees_lines(self, lines: &'static [&'static str]) -> Case {
        self.claim(move |observed| in_order(&first(&observed.seen.requests)?.lines(), lines))
    }

    pub(crate) fn status(self, status: u16) -> Case {
        self.claim(move |observed| {
            let got = first(&observed.answers)?.status();
            ensure(got == status, || format!("the client got {got}"))
        })
    }

    pub(crate) fn gets(self, name: &'static str, value: impl Into<String>) -> Case {
        let value = value.into();
        self.claim(move |observed| {
            let got = first(&observed.answers)?.get(name);
            ensure(got.as_deref() == Some(&*value), || format!("the client got {name}: {got:?}"))
        })
    }

    pub(crate) fn gets_no(self, name: &'static str) -> Case {
        self.claim(move |observed| {
            let got = first(&observed.answers)?.get(name);
            ensure(got.is_none(), || format!("the client got {name}: {got:?}"))
        })
    }

    pub(crate) fn gets_body(self, body: impl AsRef<[u8]>) -> Case {
        let body = body.as_ref().to_vec();
        self.claim(move |observed| {
            let got = &first(&observed.answers)?.body;
            ensure(*got == body, || format!("the client got the body {}", shorten(got)))
        })
    }

    pub(crate) fn gets_lines(self, lines: &'static [&'static str]) -> Case {
        self.claim(move |observed| in_order(&first(&observed.answers)?.lines(), lines))
    }

    /// The statuses of the interim answers.
    pub(crate) fn interim(self, statuses: &'static [u16]) -> Case {
        self.claim(move |observed| {
            let got: Vec<u16> = observed.interim.iter().map(Message::status).collect();
            ensure(got == statuses, || format!("the interim answers were {got:?}"))
        })
    }

    /// The client's connection serves the next request.
    pub(crate) fn kept(self) -> Case {
        self.claim(|observed| ensure(!has_closed(observed), || "the connection was closed".to_owned()))
    }

    /// The client's connection ends.
    pub(crate) fn closed(self) -> Case {
        self.claim(|observed| ensure(has_closed(observed), || "the connection stayed open".to_owned()))
    }
}

fn one(exchange: &Exchange, observed: &Observed, outcome: Outcome) -> Checked {
    let untouched = || {
        let seen = &observed.seen;
        let none = seen.requests.is_empty() && seen.partial.is_empty();
        ensure(none, || "something reached the origin".to_owned())
    };
    let incomplete = || {
        let none = observed.seen.requests.is_empty();
        ensure(none, || "a whole request reached the origin".to_owned())
    };
    match outcome {
        Outcome::Refused(statuses) => {
            refusal(observed, statuses)?;
            // 100 would have asked for the body of what is refused.
            ensure(observed.interim.is_empty(), || "an interim answer came first".to_owned())?;
            untouched()
        }
        Outcome::Broken(statuses) => {
            refusal(observed, statuses)?;
            incomplete()
        }
        Outcome::Dropped | Outcome::Gone => {
            let cut = observed.answers.is_empty() && matches!(observed.trouble, Some(Trouble::Cut(None)));
            ensure(cut, || "it was answered, or not closed".to_owned())?;
            if matches!(outcome, Outcome::Dropped) { untouched() } else { incomplete() }
        }
        Outcome::Local(statuses) => {
            answered(observed, statuses)?;
            untouched()
        }
        Outcome::Passed => {
            let whole = observed.answers.len() == exchange.methods.len();
            ensure(whole, || "not every request was answered".to_owned())?;
            let count = observed.seen.requests.len();
            ensure(count == whole_count(exchange), || format!("the origin saw {count} requests"))?;
            exchange.claims.iter().try_for_each(|claim| claim(observed))
        }
        Outcome::Claimed => exchange.claims.iter().try_for_each(|claim| claim(observed)),
        Outcome::Gateway(statuses) => {
            answered(observed, statuses)?;
            let answer = first(&observed.answers)?;
            let text = answer.start.clone() + &answer.lines().concat() + &latin1(&answer.body);
            ensure(!text.contains(RAW), || "it carries what the origin sent".to_owned())
        }
        Outcome::Truncated => match &observed.trouble {
            Some(Trouble::Cut(Some(_))) => Ok(()),
            _ => Err("it was not cut off".to_owned()),
        },
    }
}

/// Pipelined requests are as many as there are methods.
fn whole_count(exchange: &Exchange) -> usize {
    exchange.methods.len()
}

fn refusal(observed: &Observed, statuses: &[u16]) -> Checked {
    answered(observed, statuses)?;
    ensure(has_closed(observed), || "the connection stayed open".to_owned())
}

fn answered(observed: &Observed, statuses: &[u16]) -> Checked {
    match &observed.answers[..] {
        [answer] if statuses.contains(&answer.status()) => Ok(()),
        [answer] => Err(format!("it was answered with {}", answer.status())),
        answers => Err(format!("there were {} answers", answers.len())),
    }
}

fn has_closed(observed: &Observed) -> bool {
    !matches!(observed.after, Some(Ok(_)))
}

/// What holds whatever a case is about.
fn always(observed: &Observed) -> Checked {
    match &observed.trouble {
        Some(Trouble::Silence(_)) => return Err("nothing more came, and nothing was closed".to_owned()),
        Some(Trouble::Invalid(what)) => return Err(format!("the client got what is not HTTP: {what}")),
        Some(Trouble::Cut(_)) | None => {}
    }
    match &observed.after {
        Some(Ok(answer)) => ensure(answer.status() == 200, || format!("/after got {}", answer.status()))?,
        Some(Err(Trouble::Cut(None))) | None => {}
        Some(Err(trouble)) => return Err(format!("/after got {trouble:?}")),
    }
    match &observed.rest {
        Some(rest) => ensure(rest.is_empty(), || format!("behind the answer came {}", shorten(rest)))?,
        None if observed.trouble.is_some() => {}
        None => return Err("the connection was not closed".to_owned()),
    }
    if let Some(what) = observed.seen.invalid.first() {
        return Err(format!("the origin got what is not HTTP: {what}"));
    }
    observed.seen.requests.iter().try_for_each(request_always)?;
    observed.interim.iter().try_for_each(|answer| hop_by_hop(answer, "the client"))?;
    observed.answers.iter().try_for_each(answer_always)
}

fn request_always(request: &Message) -> Checked {
    let hosts = request.values("host").count();
    ensure(hosts == 1, || format!("the origin saw {hosts} Host fields"))?;
    let te = request.get("te");
    let fine = te.is_none() || (te.as_deref() == Some("trailers") && request.lists("connection", "te"));
    ensure(fine, || format!("the origin saw TE: {te:?} (RFC 9110 10.1.4)"))?;
    hop_by_hop(request, "the origin")
}

fn answer_always(answer: &Message) -> Checked {
    let dates = answer.values("date").count();
    let fine = dates == 1 || answer.status() < 200;
    ensure(fine, || format!("{} with {dates} Date fields (RFC 9110 6.6.1)", answer.status()))?;
    hop_by_hop(answer, "the client")
}

fn hop_by_hop(message: &Message, who: &str) -> Checked {
    let ours = ["close", "keep-alive", "upgrade", "te"];
    let mut options = message.values("connection").flat_map(|value| value.split(',')).map(str::trim);
    if let Some(option) = options.find(|option| !ours.iter().any(|o| o.eq_ignore_ascii_case(option))) {
        return Err(format!("{who} saw the connection option {option:?} (RFC 9110 7.6.1)"));
    }
    let left = message.get("proxy-connection");
    ensure(left.is_none(), || format!("{who} saw Proxy-Connection (RFC 9110 7.6.1)"))
}

fn in_order(lines: &[String], wanted: &[&str]) -> Checked {
    let kept: Vec<&String> = lines.iter().filter(|line| wanted.contains(&line.as_str())).collect();
    ensure(kept == wanted, || format!("the fields were {lines:?}"))
}

fn first(messages: &[Message]) -> Checked<&Message> {
    messages.first().ok_or_else(|| "there is none".to_owned())
}

fn shorten(bytes: &[u8]) -> String {
    let text: String = latin1(bytes).chars().take(80).collect();
    format!("{text:?} of {} bytes", bytes.len())
}

fn summary(observed: &Observed) -> String {
    let starts = |messages: &[Message]| -> Vec<String> { messages.iter().map(|m| m.start.clone()).collect() };
    let answers = starts(&observed.answers);
    let after = observed.after.as_ref().map(|after| after.as_ref().map(|answer| answer.start.clone()));
    let requests: Vec<String> =
        starts(&observed.seen.requests).iter().map(|line| line.chars().take(120).collect()).collect();
    format!(
        "client got {answers:?}, trouble {:?}, after {after:?}; origin saw {requests:?}, partial {:?}, invalid {:?}",
        observed.trouble, observed.seen.partial, observed.seen.invalid
    )
}
