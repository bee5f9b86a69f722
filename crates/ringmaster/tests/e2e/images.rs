//! A tag of a daemon's own that is moved from one image to another.

use bollard::Docker;
use bollard::models::ContainerConfig;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};

use crate::common::{Daemon, On};

pub(crate) struct MovingTag<'a> {
    docker: &'a Docker,
    /// With `:dev` behind it, the tag.
    pub(crate) repository: String,
    image: String,
}

impl MovingTag<'_> {
    /// Begins at the image that the daemon's replicas run.
    pub(crate) async fn of<'a>(docker: &'a Docker, daemon: &Daemon) -> MovingTag<'a> {
        let On::Docker(image) = daemon.setup.on.clone() else { unreachable!("images are for docker") };
        let repository = format!("ringmaster/{}", daemon.setup.instance);
        let tag = MovingTag { docker, repository, image };
        tag.to(&tag.image).await;
        tag
    }

    /// A service of so many replicas that run what the tag names.
    pub(crate) fn manifest(&self, daemon: &Daemon, replicas: u32) -> String {
        let tag = format!("{}:dev", self.repository);
        daemon.manifest(&daemon.web, replicas, "").replace(&self.image, &tag)
    }

    /// Moves the tag.
    pub(crate) async fn to(&self, image: &str) {
        let options = TagImageOptionsBuilder::default().repo(&self.repository).tag("dev").build();
        self.docker.tag_image(image, Some(options)).await.unwrap();
    }

    /// Another image, made of a container without its being stopped.
    pub(crate) async fn commit(&self, container: &str, config: ContainerConfig) -> String {
        let options = CommitContainerOptionsBuilder::default().container(container).pause(false).build();
        self.docker.commit_container(options, config).await.unwrap().id
    }
}

/// Removes an image, whatever names it.
pub(crate) async fn remove(docker: &Docker, image: &str) {
    let force = RemoveImageOptionsBuilder::default().force(true).build();
    docker.remove_image(image, Some(force), None).await.unwrap();
}
