//! What tests against a real engine share (feature `testing`): whether there is an engine, an image of the demo
//! replica made out of its static binary, and a guard that removes what a test made, even when it panics.
//!
//! Deliberately absent: a pretended engine.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use futures_util::TryStreamExt;
use ringmaster_runtime::{ErrorKind, labels};

use crate::DockerConfig;
use crate::engine::{CHANGE_MAX, Engine, READ_MAX};

/// Set to `1`, it makes a test fail that would be skipped for want of an engine.
pub const REQUIRE_ENGINE: &str = "RINGMASTER_REQUIRE_ENGINE";
/// The repository of test images; the tag is the hash of the binary.
const IMAGE: &str = "ringmaster/test-replica";

/// The client of the engine, for what a test does behind the runtime's back; none if no engine answers. Then
/// the test is to return at once, and a line on standard error says that it was skipped.
///
/// # Panics
/// If no engine answers and [`REQUIRE_ENGINE`] is `1`.
pub async fn engine_or_skip(test: &str) -> Option<Docker> {
    match Engine::connect(&DockerConfig::new("").socket).await {
        Ok(engine) => Some(engine.docker),
        Err(error) => {
            let required = std::env::var(REQUIRE_ENGINE).is_ok_and(|value| value == "1");
            assert!(!required && error.kind == ErrorKind::Unreachable, "{test} needs an engine: {error}");
            // Straight to the stream: the test harness hides what `eprintln!` writes.
            let line = format!("SKIPPED (no Docker engine): {test}\n");
            std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
            None
        }
    }
}

/// A name that no other test has used: for instances, networks and services.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{:x}-{:x}-{number}", std::process::id(), now.as_millis())
}

/// The demo replica's binary, in the folder that the running test was built into.
///
/// # Panics
/// If it has not been built.
pub fn replica_binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // …/<profile>/deps/<test>
    let folder = test.parent().and_then(Path::parent).expect("tests lie in a `deps` folder");
    let binary = folder.join("ringmaster-replica");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p ringmaster-replica`", binary.display());
    binary
}

/// The tag of an image that runs the demo replica as nobody, made FROM scratch if the engine has none of this
/// very binary.
///
/// # Panics
/// If the binary is missing or the engine refuses.
pub async fn replica_image(docker: &Docker) -> String {
    let binary = replica_binary();
    let lock = binary.with_file_name("ringmaster-test-image.lock");
    let (content, lock) = tokio::task::spawn_blocking(move || {
        let lock = std::fs::File::create(lock).expect("the target folder is writable");
        // Tests run in several processes; without this each would import an image of its own.
        lock.lock().expect("the lock is granted");
        (std::fs::read(binary).expect("the binary is readable"), lock)
    })
    .await
    .expect("reading does not panic");
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    let tag = format!("{:016x}", hasher.finish());
    let name = format!("{IMAGE}:{tag}");
    if docker.inspect_image(&name).await.is_err() {
        import(docker, &tag, content).await;
        forget_older(docker, &name).await;
    }
    drop(lock);
    name
}

async fn import(docker: &Docker, tag: &str, binary: Vec<u8>) {
    let changes = ["ENTRYPOINT [\"/ringmaster-replica\"]", "USER 65534:65534"];
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(IMAGE)
        .tag(tag)
        .changes(changes.map(str::to_owned).to_vec())
        .build();
    let archive = bollard::body_full(archive("ringmaster-replica", &binary).into());
    let progress = docker.create_image(Some(options), Some(archive), None);
    let imported = progress.try_for_each(|_: CreateImageInfo| async { Ok(()) });
    tokio::time::timeout(CHANGE_MAX, imported).await.expect("in time").expect("the image is imported");
}

/// Images of older binaries would pile up; those in use stay until next time.
async fn forget_older(docker: &Docker, name: &str) {
    let filters = HashMap::from([("reference", vec![IMAGE])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let images = docker.list_images(Some(options)).await.expect("images are listed");
    for tag in images.iter().flat_map(|image| &image.repo_tags).filter(|tag| *tag != name) {
        if let Err(error) = docker.remove_image(tag, None::<RemoveImageOptions>, None).await {
            tracing::debug!(%error, %tag, "an older test image stays");
        }
    }
}

/// A tar archive (POSIX ustar) that holds one executable file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    // The checksum counts its own field as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    // Filled up to a whole block; two empty blocks are the end.
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

/// Removes all containers and networks of an instance when it is dropped, also while a panic unwinds.
#[derive(Debug)]
pub struct Cleanup {
    instance: String,
}

impl Cleanup {
    /// A guard over everything that is labelled with `instance`.
    pub fn of(instance: impl Into<String>) -> Cleanup {
        Cleanup { instance: instance.into() }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let instance = std::mem::take(&mut self.instance);
        // A thread of its own: the test's runtime may be this very thread, and may be unwinding.
        let outcome = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(120), remove_all(&instance)).await?
            })
        })
        .join();
        // A panic here while another unwinds would end the process and hide the first.
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the test left something behind: {error}"),
            Err(_) => eprintln!("the test left something behind: the cleanup panicked"),
        }
    }
}

async fn remove_all(instance: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let engine = Engine::connect(&DockerConfig::new("").socket).await?;
    let docker = engine.within(READ_MAX.max(CHANGE_MAX));
    let label = format!("{}={instance}", labels::INSTANCE);
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for id in docker.list_containers(Some(options)).await?.into_iter().filter_map(|container| container.id) {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        gone(docker.remove_container(&id, Some(options)).await)?;
    }
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    for id in docker.list_networks(Some(options)).await?.into_iter().filter_map(|network| network.id) {
        gone(docker.remove_network(&id).await)?;
    }
    Ok(())
}

fn gone(outcome: Result<(), bollard::errors::Error>) -> Result<(), bollard::errors::Error> {
    use bollard::errors::Error::DockerResponseServerError;
    match outcome {
        Err(DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        outcome => outcome,
    }
}
