//! The live page in a headless Chromium, against a real daemon; and who may not use it.

use std::process::Child;
use std::time::Duration;

use fantoccini::key::Key;
use ringmaster_core::api::RolloutAction;
use ringmaster_core::status::Phase;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chromium::Browser;
use crate::common::{Daemon, On, Setup, alone, shared};
use crate::rollout::release;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What the page must show a kill within.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
const LIVE: &str = "document.querySelector('#link').textContent === 'live'";

/// A browser at the page of a daemon of processes with three replicas.
async fn opened(test: &str) -> Option<(Browser, Daemon)> {
    let browser = Browser::start(test, 1280, 900).await?;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 3, "")).await;
    open(&browser, &daemon).await;
    Some((browser, daemon))
}

async fn open(browser: &Browser, daemon: &Daemon) {
    browser.client.goto(&format!("http://{}/", daemon.setup.admin)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_on_the_page_within_a_second() {
    let _alone = alone().await;
    let Some((browser, daemon)) = opened("a_kill_is_on_the_page_within_a_second").await else { return };
    browser.until("document.querySelectorAll('tbody tr .phase.good').length === 3").await;
    browser.until("document.querySelectorAll('.ring path').length === 3").await;
    assert_eq!(browser.run("return document.querySelector('.summary').textContent").await, "3 of 3 ready");
    assert!(browser.run("return document.querySelector('td.n').textContent").await == "33.3 %");
    let loaded: Vec<String> = serde_json::from_value(
        browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)").await,
    )
    .unwrap();
    let own = format!("http://{}/", daemon.setup.admin);
    assert!(!loaded.is_empty() && loaded.iter().all(|url| url.starts_with(&own)), "{loaded:?}");
    assert_eq!(browser.complaints().await, [""; 0]);

    let killed = Instant::now();
    daemon.client.fault("web-1", "KILL").await.unwrap();
    browser
        .until(
            "[...document.querySelectorAll('#events li')].some((line) => line.textContent.includes('web-1 Failed'))",
        )
        .await;
    let told = killed.elapsed();
    browser.until("document.querySelector('.summary').textContent === '3 of 3 ready'").await;
    browser
        .until("[...document.querySelectorAll('tbody tr')].some((row) => row.querySelector('.name').textContent === 'web-1' && row.querySelector('[data-label=Restarts]').textContent === '1')")
        .await;
    println!(
        "the page told of the kill after {told:.1?}, and of its successor after {:.1?}",
        killed.elapsed()
    );
    assert!(told < SEEN_WITHIN, "{told:?}");
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_explained_and_its_change_of_server_is_shown() {
    let _shared = shared().await;
    let test = "a_key_is_explained_and_its_change_of_server_is_shown";
    let Some((browser, daemon)) = opened(test).await else { return };
    browser.until(LIVE).await;
    let service = crate::common::name("web");
    let explanation = daemon.client.explain(&service, "user-42", None).await.unwrap();
    let owner = explanation.owner.expect("the slot table has an owner for every key");
    browser.find(".key").await.send_keys("user-42").await.unwrap();
    // The whole key's answer, and not that of its first letters.
    let hash = explanation.hash.unwrap();
    browser.until(&format!("document.querySelector('.explanation').textContent.includes('{hash}')")).await;
    let goes = "return document.querySelector('.goes').textContent";
    assert_eq!(browser.run(goes).await, format!("web-{owner}"));
    browser.until("document.querySelectorAll('.ring .mark').length === 1").await;

    // A frozen owner is passed over: the page says so by itself, and whom the key goes to instead.
    daemon.client.fault(&format!("web-{owner}"), "STOP").await.unwrap();
    let next = explanation.candidates[1];
    browser.until(&format!("document.querySelector('.goes')?.textContent === 'web-{next}'")).await;
    let text = browser.run("return document.querySelector('.explanation').textContent").await;
    assert!(text.as_str().unwrap().contains(&format!("passed overweb-{owner}: ")), "{text}");
    browser.until("document.querySelectorAll('.ring .mark').length === 2").await;
    daemon.client.fault(&format!("web-{owner}"), "CONT").await.unwrap();
    browser.until(&format!("document.querySelector('.goes')?.textContent === 'web-{owner}'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buttons_scale_after_telling_what_moves() {
    let _shared = shared().await;
    let Some((browser, daemon)) = opened("the_buttons_scale_after_telling_what_moves").await else { return };
    browser.until(LIVE).await;
    browser.until("document.querySelectorAll('tbody tr').length === 3").await;
    // By keyboard, as somebody without a mouse would.
    browser.find(".plus").await.send_keys(&Key::Enter.to_string()).await.unwrap();
    browser.until("document.querySelector('.change').textContent.includes('%')").await;
    let sentence = browser.run("return document.querySelector('.change').textContent").await;
    assert_eq!(sentence, "web: 3 → 4 replicas. 25.0 % of all keys would get another owner (counted).");
    assert_eq!(daemon.status("web").await.unwrap().replicas, 3, "it asks before it changes");
    browser.find(".yes").await.send_keys(&Key::Enter.to_string()).await.unwrap();
    daemon.until("web", "scaled up", |status| status.ready == 4 && status.is_converged()).await;
    browser.until("document.querySelectorAll('tbody tr .phase.good').length === 4").await;
    browser.until("document.querySelectorAll('.ring path').length === 4").await;

    let count = browser.find(".count").await;
    count.send_keys(&format!("{}2{}", Key::Backspace, Key::Enter)).await.unwrap();
    browser.until("document.querySelector('.change').textContent.includes('4 → 2')").await;
    browser.find(".no").await.click().await.unwrap();
    browser.until("document.querySelector('.confirm').hidden").await;
    assert_eq!(daemon.status("web").await.unwrap().replicas, 4, "cancelled is cancelled");

    // A replica that finishes a request is shown while it drains.
    let (slow, listen) = (format!("http://{}/slow?ms=6000", daemon.setup.listen), daemon.setup.listen);
    let held: Vec<_> = (0..40).map(|_| tokio::spawn(reqwest::get(slow.clone()))).collect();
    let in_flight = |members: &[ringmaster_core::status::ReplicaStatus]| {
        members.iter().filter(|m| m.ordinal.0 == 3).map(|m| m.in_flight).sum::<u32>()
    };
    daemon.until("web", "busy everywhere", |status| in_flight(&status.members) > 0).await;
    browser.find(".minus").await.click().await.unwrap();
    browser.until("document.querySelector('.change').textContent.includes('4 → 3')").await;
    browser.find(".yes").await.click().await.unwrap();
    browser.until("/draining: [1-9]\\d* in flight, \\d+ s of \\d+ s/.test(document.querySelector('.drains').textContent)").await;
    let status =
        daemon.until("web", "scaled down", |status| status.ready == 3 && status.is_converged()).await;
    assert!(status.members.iter().all(|member| member.phase == Phase::Ready));
    browser.until("document.querySelector('.drains').hidden").await;
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200, "{listen}");
    }
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_goes_back_after_naming_what_it_goes_back_to() {
    let _shared = shared().await;
    let test = "the_button_goes_back_after_naming_what_it_goes_back_to";
    let Some((browser, daemon)) = opened(test).await else { return };
    browser.until(LIVE).await;
    // By keyboard, as somebody without a mouse would.
    browser.find(".back").await.send_keys(&Key::Enter.to_string()).await.unwrap();
    browser.until("document.querySelector('.change').textContent.includes('nothing to go back to')").await;
    assert_eq!(browser.run("return document.querySelector('.yes').hidden").await, true);
    browser.client.active_element().await.unwrap().send_keys(&Key::Escape.to_string()).await.unwrap();
    browser.until("document.querySelector('.confirm').hidden").await;
    assert_eq!(browser.run("return document.activeElement.className").await, "back");

    let env = "    env: { VERSION: two }\n    resources:";
    let next = daemon.manifest("web", 3, "").replace("    resources:", env);
    daemon.apply_and_converge("web", &next).await;
    let before = daemon.client.overview().await.unwrap().generation;
    browser.find(".back").await.send_keys(&Key::Enter.to_string()).await.unwrap();
    browser.until("!document.querySelector('.yes').hidden").await;
    let said = browser.run("return document.querySelector('.change').textContent").await.to_string();
    assert!(said.contains("back to the template of revision 1") && said.contains("(env)"), "{said}");
    assert_eq!(browser.run("return document.activeElement.textContent").await, "Go back to revision 1");
    assert_eq!(daemon.client.overview().await.unwrap().generation, before, "it asks before it changes");
    browser.client.active_element().await.unwrap().send_keys(&Key::Enter.to_string()).await.unwrap();
    daemon.event("RolledBack", "revision 1").await;
    daemon.until("web", "gone back", |status| status.ready == 3 && status.is_converged()).await;
    let service = daemon.client.service(&crate::common::name("web")).await.unwrap();
    assert!(service.spec.template.env.is_empty() && service.spec.replicas == Some(3));
    browser.until("document.querySelector('.confirm').hidden").await;
    browser.until("document.querySelector('#events').textContent.includes('RolledBack')").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_shown_paused_resumed_promoted_and_undone() {
    let _shared = shared().await;
    let test = "a_rollout_is_shown_paused_resumed_promoted_and_undone";
    let Some(browser) = Browser::start(test, 1280, 900).await else { return };
    let daemon = Daemon::start(On::Process).await;
    let version = |version: &str| release(&daemon, 4, &format!("VERSION: {version}"), "canary: 10%");
    daemon.apply_and_converge("web", &version("one")).await;
    open(&browser, &daemon).await;
    browser.until(LIVE).await;
    browser.until("document.querySelectorAll('tbody tr .phase.good').length === 4").await;
    assert_eq!(browser.run("return document.querySelector('.rollout').hidden").await, true);
    let says = async |text: &str| {
        let shown = format!("document.querySelector('.rollout').textContent.includes('{text}')");
        browser.until(&format!("!document.querySelector('.rollout').hidden && {shown}")).await;
    };
    let offered = "return [...document.querySelectorAll('.rollout button')].filter((b) => !b.hidden).map((b) => b.value)";
    let decide = async |button: &str, sentence: &str| {
        let before = daemon.client.overview().await.unwrap().generation;
        browser.find(&format!(".rollout [value={button}]")).await.click().await.unwrap();
        browser.until(&format!("document.querySelector('.change').textContent.includes('{sentence}')")).await;
        browser.until("!document.querySelector('.yes').hidden").await;
        assert_eq!(daemon.client.overview().await.unwrap().generation, before, "it asks before it changes");
        browser.find(".yes").await.click().await.unwrap();
        browser.until("document.querySelector('.confirm').hidden").await;
    };
    daemon.apply(&version("two")).await;
    says("to revision 2: 1 of 4 replicas ready, and the canary waits for its promotion").await;
    assert_eq!(browser.run(offered).await, json!(["promote", "undo"]));
    assert_eq!(browser.run("return document.querySelector('.rollout progress').value").await, 1);
    // What was asked for before another question is forgotten.
    browser.find(".rollout [value=promote]").await.click().await.unwrap();
    browser.until("!document.querySelector('.confirm').hidden").await;
    browser.find(".plus").await.click().await.unwrap();
    browser.until("document.querySelector('.change').textContent.includes('4 → 5')").await;
    browser.find(".no").await.click().await.unwrap();
    browser.until("document.querySelector('.confirm').hidden").await;

    daemon.client.rollout(&crate::common::name("web"), RolloutAction::Pause).await.unwrap();
    says("1 of 4 replicas ready, paused").await;
    assert_eq!(browser.run(offered).await, json!(["resume", "undo"]));
    decide("resume", "web: the rollout goes on where it was paused.").await;
    daemon.event("RolloutResumed", "").await;
    says("the canary waits for its promotion").await;
    decide("promote", "web: the canary is good, and the other replicas are replaced too.").await;
    daemon.until("web", "promoted", |s| s.is_converged() && s.updated == 4).await;
    browser.until("document.querySelector('.rollout').hidden").await;

    // One that does not get ready is held, and then undone.
    let silent = version("three").replace("[ringmaster, replica]", "[sleep, '1000']");
    daemon.apply(&silent).await;
    says("0 of 4 replicas ready").await;
    decide("pause", "web: no further replica is replaced until it is resumed").await;
    says(", paused").await;
    decide("undo", "back to the template of revision").await;
    daemon.until("web", "undone", |s| s.is_converged() && s.updated == 4).await;
    browser.until("document.querySelector('.rollout').hidden").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_when_it_is_stale_and_goes_on_after_a_restart() {
    let _shared = shared().await;
    let test = "it_says_when_it_is_stale_and_goes_on_after_a_restart";
    let Some((browser, mut daemon)) = opened(test).await else { return };
    browser.until(LIVE).await;
    browser.run("window.sameDocument = true").await;
    assert_eq!(daemon.end(Signal::TERM).await, Some(0));
    let took =
        browser.until("document.querySelector('#link').textContent.startsWith('stale: no news for')").await;
    assert_eq!(browser.run("return document.documentElement.classList.contains('stale')").await, true);
    assert_eq!(browser.run("return document.querySelector('.plus').disabled").await, true);
    daemon.restart().await;
    let back = browser.until(LIVE).await;
    println!("stale {took:.1?} after the end, live {back:.1?} after the start");
    browser.until("!document.documentElement.classList.contains('stale')").await;
    daemon.client.scale(&crate::common::name("web"), 2).await.unwrap();
    browser.until("document.querySelector('.summary').textContent === '2 of 2 ready'").await;
    assert_eq!(browser.run("return window.sameDocument").await, true, "nobody loaded the page again");

    // Frozen, it keeps its connections and says nothing.
    let pid = rustix::process::Pid::from_raw(daemon.pid()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    browser.until("document.documentElement.classList.contains('stale')").await;
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    browser.until(LIVE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_window_needs_no_sideways_scrolling_and_texts_stay_texts() {
    let _shared = shared().await;
    let test = "a_narrow_window_needs_no_sideways_scrolling_and_texts_stay_texts";
    let Some(browser) = Browser::start(test, 360, 740).await else { return };
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 3, "")).await;
    let hostile = "<img src=x onerror=document.title='taken'>";
    let long = crate::common::service_yaml(
        "a-name-as-long-as-names-may-be-forty-byt",
        1,
        &format!("process: {{ command: [\"{hostile}\"] }}"),
        "  route: { pathPrefix: /other }\n",
    );
    daemon.apply(&long).await;
    open(&browser, &daemon).await;
    browser.until(&format!("document.querySelector('#live').textContent.includes({})", json!(hostile))).await;
    browser.until("document.querySelectorAll('.service').length === 2").await;
    let widths = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]").await;
    assert_eq!(widths, json!([360, 360]));
    let found = browser.run("return [document.title, document.querySelectorAll('#live img').length]").await;
    assert_eq!(found, json!(["Ringmaster", 0]));
    browser.find("#theme").await.click().await.unwrap();
    let background = "return getComputedStyle(document.body).backgroundColor";
    let one = browser.run(background).await;
    browser.find("#theme").await.click().await.unwrap();
    assert_ne!(browser.run(background).await, one, "the other theme looks different");
    assert_eq!(browser.complaints().await, [""; 0]);
}

/// A daemon that is ended with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A daemon that asks for a token.
fn with_token() -> (Setup, tempfile::TempDir) {
    let (setup, folder) = Setup::new(On::Process);
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    (setup.with(&["--admin-token-file", file.to_str().unwrap()]), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_page_asks_for_it_and_shows_nothing_without() {
    let _shared = shared().await;
    let test = "with_a_token_the_page_asks_for_it_and_shows_nothing_without";
    let Some(browser) = Browser::start(test, 1280, 900).await else { return };
    let (setup, _folder) = with_token();
    let url = format!("http://{}", setup.admin);
    let _daemon = Ended(setup.command().spawn().unwrap());
    let client = ringmaster_client::Client::new(&url, Some(TOKEN.to_owned())).unwrap();
    crate::common::eventually("it answers", || async { client.overview().await.ok() }).await;
    browser.client.goto(&url).await.unwrap();
    browser.until("!document.querySelector('#token-form').hidden").await;
    assert_eq!(browser.run("return document.querySelector('#daemon').textContent").await, "");
    let field = browser.find("#token").await;
    field.send_keys(&format!("wrong-{TOKEN}{}", Key::Enter)).await.unwrap();
    browser.until("document.querySelector('#token').value === ''").await;
    browser.until("!document.querySelector('#token-form').hidden").await;
    field.send_keys(&format!("{TOKEN}{}", Key::Enter)).await.unwrap();
    browser.until(LIVE).await;
    browser.until("document.querySelector('#daemon').textContent.includes('process')").await;
    let kept = browser
        .run("return [JSON.stringify({...localStorage}), document.cookie, document.body.innerHTML]")
        .await;
    assert!(!kept.to_string().contains(TOKEN), "{kept}");
    browser.client.refresh().await.unwrap();
    browser.until(LIVE).await;
    // Links cannot send the token: the list of routes needs none, and the page asks for the metrics itself.
    browser.find("#metrics").await.click().await.unwrap();
    browser.until("document.body.innerText.includes('ringmaster_build_info')").await;
    browser.client.back().await.unwrap();
    browser.find("footer a").await.click().await.unwrap();
    browser.until("document.body.innerText.startsWith('Ringmaster admin API')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_changes_nothing() {
    let _shared = shared().await;
    let Some((browser, daemon)) = opened("a_page_of_another_origin_changes_nothing").await else { return };
    let before = daemon.client.overview().await.unwrap().generation;
    browser.client.goto(&format!("http://{}/home", daemon.setup.listen)).await.unwrap();
    // As JSON, which asks first; and as a form could send it, which does not.
    for kind in ["application/json", "text/plain"] {
        let script = format!(
            "const done = arguments[0]; fetch('http://{}/api/v1/services/web/scale', {{ method: 'POST', \
             headers: {{ 'Content-Type': '{kind}' }}, body: '{{\"replicas\": 1}}' }}) \
             .then((answer) => done(`answered ${{answer.status}}`), () => done('refused'));",
            daemon.setup.admin
        );
        assert_eq!(browser.client.execute_async(&script, Vec::new()).await.unwrap(), "refused", "{kind}");
    }
    assert_eq!(daemon.client.overview().await.unwrap().generation, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_from_elsewhere_or_without_the_token_are_refused() {
    let _shared = shared().await;
    let (setup, _folder) = with_token();
    let url = format!("http://{}", setup.admin);
    let _daemon = Ended(setup.command().spawn().unwrap());
    let with = ringmaster_client::Client::new(&url, Some(TOKEN.to_owned())).unwrap();
    crate::common::eventually("it answers", || async { with.overview().await.ok() }).await;
    let http = reqwest::Client::new();
    let page = http.get(&url).header("accept", "text/html,*/*;q=0.8").send().await.unwrap();
    let header = |name: &str| page.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert!(page.text().await.unwrap().starts_with("<!doctype html>"), "the page itself needs no token");
    let listing = http.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(listing.starts_with("Ringmaster admin API"), "curl gets text: {listing}");

    let scale = || http.post(format!("{url}/api/v1/services/web/scale")).json(&json!({ "replicas": 2 }));
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(scale()).await, 401, "without the token");
    assert_eq!(status(scale().bearer_auth("x".repeat(32))).await, 401, "with another");
    let foreign = scale().bearer_auth(TOKEN).header("origin", "http://evil.example");
    assert_eq!(status(foreign).await, 403, "from another origin");
    let own = scale().bearer_auth(TOKEN).header("origin", &url);
    let answer: Value = own.send().await.unwrap().json().await.unwrap();
    assert!(
        answer["error"].as_str().unwrap().contains("there is no service `web`"),
        "it got through: {answer}"
    );
    assert_eq!(status(http.get(format!("{url}/api/v1/watch"))).await, 401, "nor anything to follow");
    assert_eq!(status(http.get(format!("{url}/metrics"))).await, 401, "nor what is counted");
    let rollback = || http.post(format!("{url}/api/v1/services/web/rollback")).json(&json!({}));
    assert_eq!(status(rollback()).await, 401, "nor a way back");
    let foreign = rollback().bearer_auth(TOKEN).header("origin", "http://evil.example");
    assert_eq!(status(foreign).await, 403, "from another origin");
    assert_eq!(status(http.put(format!("{url}/api/v1/log")).body("trace")).await, 401, "nor what is logged");
}
