//! A typed client of the admin API. Every error is one line that says what failed and what to do.
//!
//! Deliberately absent: types of its own. What travels is defined in `ringmaster_core::api`.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use reqwest::{Method, StatusCode};
use ringmaster_core::api::{
    ApplyRequest, ApplyResponse, DaemonInfo, ErrorBody, EventList, FaultRequest, LogFilter, Overview,
    RevisionList, RingView, RollbackRequest, RollbackResponse, RolloutAction, RolloutRequest,
    RolloutResponse, ScaleRequest, ServiceView,
};
use ringmaster_core::ring::explain::Explanation;
use ringmaster_core::{Generation, ServiceName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Time until an answer begins. `apply` may wait for a disk, logs for the engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A call that failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error(
        "no ringmaster daemon answers at {url} ({cause}): start one with `make up` or `ringmaster serve`, or name another with --admin"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened.
        cause: String,
    },
    /// The daemon refused; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The manifest is wrong: the text is the whole report.
    #[error("{0}")]
    Invalid(String),
    /// The answer was not what a daemon of this version answers.
    #[error("{url} answered something else than a ringmaster daemon of this version ({cause})")]
    Garbled {
        /// Which address.
        url: String,
        /// What was wrong.
        cause: String,
    },
}

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// A client of the daemon at `base`, such as `http://127.0.0.1:5001`.
    ///
    /// # Errors
    /// If `base` is not a URL.
    pub fn new(base: &str, token: Option<String>) -> Result<Client, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let garbled = |cause: String| ClientError::Unreachable { url: base.clone(), cause };
        reqwest::Url::parse(&base).map_err(|error| garbled(error.to_string()))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| garbled(error.to_string()))?;
        Ok(Client { base, token, http })
    }

    /// Everything at a glance.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn overview(&self) -> Result<Overview, ClientError> {
        self.get("/api/v1/overview").await
    }

    /// One service.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none of that name.
    pub async fn service(&self, name: &ServiceName) -> Result<ServiceView, ClientError> {
        self.get(&format!("/api/v1/services/{name}")).await
    }

    /// Makes the desired state what the files say, or only tells what would change.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] with the report if the manifest is wrong; nothing is applied.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyResponse, ClientError> {
        self.post("/api/v1/apply", request).await
    }

    /// Sets the live replica count.
    ///
    /// # Errors
    /// As every call.
    pub async fn scale(&self, name: &ServiceName, replicas: u32) -> Result<Generation, ClientError> {
        self.post(&format!("/api/v1/services/{name}/scale"), &ScaleRequest { replicas }).await
    }

    /// Deletes a service.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete(&self, name: &ServiceName) -> Result<Generation, ClientError> {
        let path = format!("/api/v1/services/{name}");
        self.json(self.request(Method::DELETE, &path)).await
    }

    /// Deletes a service without waiting until the data plane has let go of its replicas.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_by_force(&self, name: &ServiceName) -> Result<Generation, ClientError> {
        let path = format!("/api/v1/services/{name}?force=true");
        self.json(self.request(Method::DELETE, &path)).await
    }

    /// The templates that a service has had.
    ///
    /// # Errors
    /// As every call.
    pub async fn revisions(&self, name: &ServiceName) -> Result<RevisionList, ClientError> {
        self.get(&format!("/api/v1/services/{name}/revisions")).await
    }

    /// Makes the template of an earlier revision the one in force; without a revision the one before.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the service cannot go back there; nothing is changed.
    pub async fn rollback(
        &self,
        name: &ServiceName,
        to_revision: Option<Generation>,
    ) -> Result<RollbackResponse, ClientError> {
        self.post(&format!("/api/v1/services/{name}/rollback"), &RollbackRequest { to_revision }).await
    }

    /// Holds a service's rollout, lets it go on, promotes its canary, or begins one without another template.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if that cannot be done now; nothing is changed.
    pub async fn rollout(
        &self,
        name: &ServiceName,
        action: RolloutAction,
    ) -> Result<RolloutResponse, ClientError> {
        self.post(&format!("/api/v1/services/{name}/rollout"), &RolloutRequest { action }).await
    }

    /// What the daemon logs.
    ///
    /// # Errors
    /// As every call.
    pub async fn log_filter(&self) -> Result<LogFilter, ClientError> {
        self.get("/api/v1/log").await
    }

    /// Makes it log something else.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the filter is wrong; nothing is changed.
    pub async fn set_log_filter(&self, filter: &str) -> Result<LogFilter, ClientError> {
        let request = self.request(Method::PUT, "/api/v1/log").header("content-type", "text/plain");
        self.json(request.body(filter.to_owned())).await
    }

    /// All metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// As every call.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.send(self.request(Method::GET, "/metrics").timeout(ANSWER_TIMEOUT)).await?;
        response.text().await.map_err(|error| self.garbled(&error))
    }

    /// Who owns which share of a service's keys, or would with so many replicas.
    ///
    /// # Errors
    /// As every call.
    pub async fn ring(&self, name: &ServiceName, replicas: Option<u32>) -> Result<RingView, ClientError> {
        let path = format!("/api/v1/services/{name}/ring");
        self.json(self.request(Method::GET, &path).query(&[("replicas", replicas)])).await
    }

    /// Why a key goes where it goes now, or would with so many replicas.
    ///
    /// # Errors
    /// As every call.
    pub async fn explain(
        &self,
        name: &ServiceName,
        key: &str,
        replicas: Option<u32>,
    ) -> Result<Explanation, ClientError> {
        let path = format!("/api/v1/services/{name}/explain");
        let request =
            self.request(Method::GET, &path).query(&[("key", key)]).query(&[("replicas", replicas)]);
        self.json(request).await
    }

    /// The timeline after sequence number `since`.
    ///
    /// # Errors
    /// As every call.
    pub async fn events(&self, since: u64) -> Result<EventList, ClientError> {
        self.get(&format!("/api/v1/events?since={since}")).await
    }

    /// The last `lines` lines of a replica's output; `previous` asks for the one that ended before.
    ///
    /// # Errors
    /// As every call.
    pub async fn logs(&self, replica: &str, lines: usize, previous: bool) -> Result<String, ClientError> {
        let path = format!("/api/v1/replicas/{replica}/logs?lines={lines}&previous={previous}");
        let response = self.send(self.request(Method::GET, &path).timeout(ANSWER_TIMEOUT)).await?;
        response.text().await.map_err(|error| self.garbled(&error))
    }

    /// Sends a signal to a replica's process; returns its full name.
    ///
    /// # Errors
    /// As every call.
    pub async fn fault(&self, replica: &str, signal: &str) -> Result<String, ClientError> {
        let request = FaultRequest { signal: signal.to_owned() };
        self.post(&format!("/api/v1/replicas/{replica}/fault"), &request).await
    }

    /// About the daemon.
    ///
    /// # Errors
    /// As every call.
    pub async fn version(&self) -> Result<DaemonInfo, ClientError> {
        self.get("/api/v1/version").await
    }

    /// Yields whenever something has changed, at once for the first time; ends when the daemon goes.
    ///
    /// # Errors
    /// As every call.
    pub async fn changes(&self) -> Result<impl Stream<Item = ()> + use<>, ClientError> {
        let response = self.send(self.request(Method::GET, "/api/v1/watch")).await?;
        let chunks = response.bytes_stream().take_while(|chunk| std::future::ready(chunk.is_ok()));
        Ok(chunks.map(|_| ()))
    }

    /// Whether somebody is there: a daemon, or a data plane that serves its figures.
    ///
    /// # Errors
    /// As every call.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.send(self.request(Method::GET, "/healthz").timeout(ANSWER_TIMEOUT)).await.map(drop)
    }

    /// The error for a daemon that was there and has gone.
    pub fn gone(&self) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), cause: "it has gone".to_owned() }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, path)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        response.json().await.map_err(|error| self.garbled(&error))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::Unreachable {
            url: self.base.clone(),
            cause: root_cause(&error),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) if status == StatusCode::UNPROCESSABLE_ENTITY => Err(ClientError::Invalid(body.error)),
            Ok(body) => Err(ClientError::Refused(body.error)),
            Err(_) => Err(ClientError::Garbled { url: self.base.clone(), cause: status.to_string() }),
        }
    }

    fn garbled(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Garbled { url: self.base.clone(), cause: root_cause(error) }
    }
}

/// The innermost cause: `connection refused`, not three layers of wrapping.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
