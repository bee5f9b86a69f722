//! From a template to the id of its image, pulling where the policy asks for it.

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;
use ringmaster_core::spec::{PullPolicy, Template};
use ringmaster_runtime::{ErrorKind, RuntimeError};

use crate::engine::{Engine, PULL_MAX, READ_MAX};

/// The id of the template's image.
pub(crate) async fn resolve(engine: &Engine, template: &Template) -> Result<String, RuntimeError> {
    let Some(image) = template.image.as_deref().filter(|image| !image.is_empty()) else {
        return Err(RuntimeError::new(
            "resolve the template",
            ErrorKind::Invalid,
            "template.image is missing: the docker runtime needs an image",
        ));
    };
    if template.pull_policy != PullPolicy::Always
        && let Some(id) = image_id(engine, image).await?
    {
        return Ok(id);
    }
    if template.pull_policy == PullPolicy::Never {
        return Err(missing(image, "it is not on the engine, and pullPolicy is never"));
    }
    match pull(engine, image).await {
        Ok(()) => image_id(engine, image)
            .await?
            .ok_or_else(|| missing(image, "it was pulled, but is not on the engine now")),
        Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
        Err(error) => {
            Err(missing(image, &format!("it is not on the engine and cannot be pulled ({})", error.message)))
        }
    }
}

fn missing(image: &str, why: &str) -> RuntimeError {
    RuntimeError::new(
        format!("resolve image {image}"),
        ErrorKind::ImageMissing,
        format!("{why}: build it (`make images` builds the demo's) or pull it (`docker pull {image}`)"),
    )
}

async fn image_id(engine: &Engine, image: &str) -> Result<Option<String>, RuntimeError> {
    let operation = format!("inspect image {image}");
    match engine.call(operation.clone(), READ_MAX, engine.docker.inspect_image(image)).await {
        Ok(found) => found
            .id
            .map(Some)
            .ok_or_else(|| RuntimeError::new(operation, ErrorKind::Engine, "the engine told no id")),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn pull(engine: &Engine, image: &str) -> Result<(), RuntimeError> {
    let mut options = CreateImageOptionsBuilder::new().from_image(image);
    if !has_tag_or_digest(image) {
        // Without a tag the engine would pull every tag there is.
        options = options.tag("latest");
    }
    tracing::info!(image, "pulling");
    let docker = engine.within(PULL_MAX);
    let progress = docker.create_image(Some(options.build()), None, None);
    let pulled = progress.try_for_each(|_: CreateImageInfo| async { Ok(()) });
    engine.call(format!("pull image {image}"), PULL_MAX, pulled).await
}

fn has_tag_or_digest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.contains([':', '@'])
}

#[cfg(test)]
mod tests {
    use super::has_tag_or_digest;

    #[test]
    fn a_registrys_port_is_not_a_tag() {
        for (image, expected) in [
            ("web", false),
            ("web:1", true),
            ("localhost:5000/web", false),
            ("localhost:5000/web:1", true),
            ("a/web@sha256:00", true),
        ] {
            assert_eq!(has_tag_or_digest(image), expected, "{image}");
        }
    }
}
