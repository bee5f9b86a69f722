//! `top`: what the live page shows, in a terminal.
//!
//! The screen is drawn anew after every look; a daemon that goes away is said so and looked for again. Deliberately
//! absent: a way to change anything.

mod counted;
mod screen;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use ringmaster_client::{Client, ClientError};
use ringmaster_core::api::{EventList, Overview, RingView};
use ringmaster_core::{Generation, ServiceName};
use tokio::time::Instant;

use self::counted::Counted;
use self::screen::{Key, Screen};
use self::view::{Size, View};
use crate::cli::{Output, Top};
use crate::output::out;

/// Shares are over so long: those of one second are chance.
const SHARE_WINDOW: Duration = Duration::from_secs(10);

/// What a daemon told at one moment.
struct Look {
    at: Instant,
    overview: Overview,
    counted: Counted,
}

/// The owners of keys, asked for again only when they may have changed.
type Rings = BTreeMap<ServiceName, (Generation, RingView)>;

pub(super) async fn run(client: &Client, options: &Top) -> anyhow::Result<()> {
    let is_plain = options.once || options.output != Output::Table || !std::io::stdout().is_terminal();
    if is_plain { once(client, options).await } else { watch(client, options.interval).await }
}

/// Two looks, one table.
async fn once(client: &Client, options: &Top) -> anyhow::Result<()> {
    let mut rings = Rings::new();
    let before = look(client).await?;
    tokio::time::sleep_until(before.at + options.interval).await;
    let view = make(client, &before, &before, &look(client).await?, &mut rings).await?;
    match options.output {
        Output::Json => out(&serde_json::to_string_pretty(&view)?)?,
        Output::Yaml => out(serde_saphyr::to_string(&view)?.trim_end())?,
        Output::Name => out(&view.names().join("\n"))?,
        Output::Table | Output::Wide => out(&view::render(&view, Size::PAPER).join("\n"))?,
    }
    Ok(())
}

/// Looks and draws until somebody has seen enough.
async fn watch(client: &Client, interval: Duration) -> anyhow::Result<()> {
    let mut screen = Screen::take().context("take over the terminal")?;
    let mut looks: VecDeque<Look> = VecDeque::new();
    let mut rings = Rings::new();
    let mut last: Option<View> = None;
    loop {
        let next = Instant::now() + interval;
        match seen(client, &mut looks, &mut rings).await {
            Ok(view) => last = Some(view),
            Err(error) => {
                // A daemon that comes back counts from 0.
                looks.clear();
                rings.clear();
                last = Some(View { away: Some(away(&error)), ..last.unwrap_or_default() });
            }
        }
        if let Some(view) = &last {
            screen.draw(&view::render(view, screen.size()))?;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                key = screen.key() => match key {
                    Key::Quit => return Ok(()),
                    Key::Other => {}
                },
            }
        }
    }
}

async fn seen(client: &Client, looks: &mut VecDeque<Look>, rings: &mut Rings) -> Result<View, ClientError> {
    let now = look(client).await?;
    while looks.get(1).is_some_and(|second| now.at.duration_since(second.at) >= SHARE_WINDOW) {
        looks.pop_front();
    }
    let (first, before) = (looks.front().unwrap_or(&now), looks.back().unwrap_or(&now));
    let view = make(client, first, before, &now, rings).await?;
    looks.push_back(now);
    Ok(view)
}

async fn look(client: &Client) -> Result<Look, ClientError> {
    let at = Instant::now();
    let overview = client.overview().await?;
    Ok(Look { at, overview, counted: Counted::read(&client.metrics().await?) })
}

async fn make(
    client: &Client,
    first: &Look,
    before: &Look,
    now: &Look,
    rings: &mut Rings,
) -> Result<View, ClientError> {
    for service in &now.overview.services {
        if rings.get(&service.name).is_some_and(|(generation, _)| *generation == service.generation) {
            continue;
        }
        match client.ring(&service.name, None).await {
            Ok(ring) => drop(rings.insert(service.name.clone(), (service.generation, ring))),
            // It went between the two questions.
            Err(ClientError::Refused(_)) => drop(rings.remove(&service.name)),
            Err(error) => return Err(error),
        }
    }
    let EventList { events, .. } = client.events(0).await?;
    Ok(View::of(first, before, now, rings, events))
}

/// What became of the daemon, without the advice on how to start one: whoever watches had one.
fn away(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { url, cause } => format!("no daemon answers at {url} ({cause})"),
        other => other.to_string(),
    }
}
