//! Sources on the wire.

use domain::{
    id::SourceId,
    source::{
        CustomResponse, Definition, MAX_RESPONSE, PLAIN, Provider, Source,
        forward::ForwardedHeaders,
        location::{Location, Locations},
        verifier::Verifier,
    },
};
use serde::{Deserialize, Serialize};
use storage::sources::{self, Create, Delete, Filter, Update};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, Ulid,
    answer::{Null, Told},
    broker::PubSubIn,
    fields::{Text, Title},
    page::{Paged, Paging},
    verifier::{VerifierIn, VerifierOut, Wrong},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        dialect::Kind,
        json::present,
        query::{Asked, Parameters},
    },
};

/// Where the path of each source's URL begins.
pub(crate) const INGEST: &str = "/ingest";
/// The longest name of a media type.
const MAX_MEDIA_TYPE: usize = 256;

/// How events come to a source.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConvoySourceType)]
enum SourceType {
    /// By requests to its `url`
    #[default]
    #[serde(alias = "", alias = "rest_api")]
    Http,
    /// From a broker: not supported yet
    PubSub,
    /// From a database: not supported yet
    DbChangeStream,
}

/// What senders are answered with, in place of our words.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyCustomResponseIn)]
struct CustomResponseIn {
    /// At most 16384 bytes; empty is none
    body: Option<String>,
    /// `text/plain; charset=utf-8` if absent
    content_type: Option<Text>,
}

/// A source. In an update, absent fields stay.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ConvoySourceIn)]
pub(crate) struct SourceIn {
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    name: Option<Title>,
    #[serde(rename = "type", default)]
    #[schema(inline)]
    kind: SourceType,
    /// `github`, `shopify` or `twitter`; `stripe`, `slack`, `standard_webhooks` and `convoy` are ours. With one of them, `verifier.hmac.secret` is
    /// all that is to be told of the verifier
    provider: Option<Text>,
    verifier: Option<VerifierIn>,
    custom_response: Option<CustomResponseIn>,
    /// What makes a repeat known, in this order: `request.header.<name>`, `request.body.<field>` or `request.query.<name>`
    idempotency_keys: Option<Vec<Text>>,
    /// Refuses a request that has nothing at any of these; else it is taken, and is never a duplicate
    reject_missing_idempotency_key: Option<bool>,
    /// Where a request says what happened, in one of the same three forms; `source.` and the source's id, if it says nothing
    event_type_location: Option<Text>,
    /// Which headers are kept and go on to endpoints; never those that the sender proves itself with
    forward_headers: Option<Vec<Text>>,
    is_disabled: Option<bool>,
    pub_sub: Option<PubSubIn>,
    /// Not supported yet
    body_function: Option<String>,
    /// Not supported yet
    header_function: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyCustomResponse)]
struct CustomResponseOut {
    body: String,
    content_type: String,
}

/// A source. What is secret is never shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySource)]
pub(crate) struct SourceOut {
    uid: Ulid,
    project_id: Ulid,
    name: String,
    #[serde(rename = "type")]
    #[schema(inline)]
    kind: SourceType,
    /// Empty, if none is named
    provider: &'static str,
    /// The last part of `url`; as hard to guess as a key
    mask_id: String,
    /// Where senders send to
    #[schema(example = "https://hooks.example.com/ingest/4TWQrZ8mJdp1vC6sXy9KfLb2NgHe7UaR")]
    url: String,
    is_disabled: bool,
    /// Null, if the main secret that it was sealed with is not here: the source takes nothing then
    #[schema(required)]
    verifier: Option<VerifierOut>,
    custom_response: CustomResponseOut,
    idempotency_keys: Vec<String>,
    reject_missing_idempotency_key: bool,
    event_type_location: String,
    forward_headers: Vec<String>,
    #[schema(value_type = Option<Object>, required)]
    provider_config: Option<()>,
    #[schema(value_type = Option<Object>, required)]
    pub_sub: Option<()>,
    #[schema(value_type = Option<String>, required)]
    body_function: Option<()>,
    #[schema(value_type = Option<String>, required)]
    header_function: Option<()>,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

impl SourceOut {
    fn new(source: &Source, public_url: &str) -> Self {
        let Source { id, tenant_id, mask, definition, created_at, updated_at, .. } = source;
        let response = definition.response.as_ref();
        Self {
            uid: Ulid::of(*id),
            project_id: Ulid::of(*tenant_id),
            name: definition.name.clone(),
            kind: SourceType::Http,
            provider: definition.provider.map(Provider::name).unwrap_or_default(),
            mask_id: mask.as_str().to_owned(),
            url: format!("{public_url}{INGEST}/{}", mask.as_str()),
            is_disabled: definition.is_disabled,
            verifier: VerifierOut::new(&definition.verifier),
            custom_response: CustomResponseOut {
                body: response.map(|response| response.body.clone()).unwrap_or_default(),
                content_type: response.map(|response| response.content_type.clone()).unwrap_or_default(),
            },
            idempotency_keys: definition.locations.iter().map(Location::text).collect(),
            reject_missing_idempotency_key: definition.rejects_missing_key,
            event_type_location: definition.event_type_at.as_ref().map(Location::text).unwrap_or_default(),
            forward_headers: definition.forwarded.names().map(str::to_owned).collect(),
            provider_config: None,
            pub_sub: None,
            body_function: None,
            header_function: None,
            created_at: Time(*created_at),
            updated_at: Time(*updated_at),
            deleted_at: None,
        }
    }
}

/// Which sources are listed.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only those with this in their name
    q: Option<String>,
    /// Only those of this type: `http`
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only those of this provider
    provider: Option<String>,
}

impl Parameters for Wanted {}

/// List all sources
#[utoipa::path(get, path = "/api/v1/projects/{projectID}/sources", tag = "Convoy: Sources", operation_id = "convoy.LoadSourcesPaged")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, Wanted)>) -> ApiResult<Told<200, Paged<SourceOut>>> {
    let (paging, Wanted { q, kind, provider }) = asked.read()?;
    let page = paging.of_ids::<SourceId>()?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let provider = given(provider).map(|name| named(&name)).transpose().map_err(|why| ApiError::invalid(&["query", "provider"], why))?;
    if given(kind).is_some_and(|kind| !["http", "rest_api"].contains(&kind.as_str())) {
        return Err(ApiError::invalid(&["query", "type"], "must be `http`: there are no others"));
    }
    let filter = Filter { name: given(q), provider };
    let found = sources::list(call.db(), call.tenant_id(), &filter, &page.request).await?;
    let public_url = &call.context.config.public_url;
    Ok(page.told("Sources fetched successfully", &found, |source| source.id, |source| SourceOut::new(source, public_url)))
}

/// Create a source
///
/// Its `url` is where the other service sends to. The secret of its verifier is not shown again.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/sources", tag = "Convoy: Sources", operation_id = "convoy.CreateSource",
    request_body = SourceIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, SourceOut>> {
    let effect = call.json::<SourceIn>().and_then(SourceIn::supported).and_then(|new| {
        let definition = new.onto(None).map_err(|(field, why)| ApiError::invalid(&["body", field], why))?;
        Ok(Create { tenant_id: call.tenant_id(), definition })
    });
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |source| Told::new("Source created successfully", &SourceOut::new(source, &public_url))).await
}

/// Retrieve a source
#[utoipa::path(get, path = "/api/v1/projects/{projectID}/sources/{sourceID}", tag = "Convoy: Sources", operation_id = "convoy.GetSource")]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, SourceOut>> {
    let source = sources::get(call.db(), call.tenant_id(), source_id(&call)?).await?;
    Ok(Told::new("Source fetched successfully", &SourceOut::new(&source, &call.context.config.public_url)))
}

/// Update a source
///
/// Changes what is given; what is not, stays. It holds within a second at every node.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/sources/{sourceID}", tag = "Convoy: Sources", operation_id = "convoy.UpdateSource",
    request_body = SourceIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<202, SourceOut>> {
    let effect = source_id(&call).and_then(|id| {
        let new = call.json::<SourceIn>()?.supported()?;
        let revise = move |was: Definition| new.onto(Some(&was)).map_err(|(field, why)| storage::Error::Invalid { field, why });
        Ok(Update { tenant_id: call.tenant_id(), id, revise })
    });
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |source| Told::new("Source updated successfully", &SourceOut::new(source, &public_url))).await
}

/// Delete a source
///
/// It takes nothing more, within a second at every node, and its subscriptions go with it. What came by it stays.
#[utoipa::path(
    delete,
    path = "/api/v1/projects/{projectID}/sources/{sourceID}",
    tag = "Convoy: Sources",
    operation_id = "convoy.DeleteSource"
)]
pub(crate) async fn delete(call: Call) -> ApiResult<Told<200, Null>> {
    let effect = source_id(&call).map(|id| Delete { tenant_id: call.tenant_id(), id });
    call.write(effect, |()| Told::new("Source deleted successfully", &Null::NULL)).await
}

fn source_id(call: &Call) -> ApiResult<SourceId> {
    call.id(Kind::Source, "source")
}

fn named(name: &str) -> Result<Provider, String> {
    let names = || Provider::ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ");
    Provider::named(name).ok_or_else(|| format!("must be one of {}", names()))
}

impl SourceIn {
    /// Refuses by name what is not supported, if it is right otherwise.
    fn supported(self) -> ApiResult<Self> {
        let invalid = |(field, why): Wrong| ApiError::invalid(&["body", field], why);
        match self.kind {
            SourceType::PubSub => {
                self.pub_sub.as_ref().ok_or(("pub_sub", "is missing".to_owned())).and_then(PubSubIn::check).map_err(invalid)?;
                return Err(ApiError::NotYet("sources of the type `pub_sub`".to_owned()));
            }
            SourceType::DbChangeStream => return Err(ApiError::NotYet("sources of the type `db_change_stream`".to_owned())),
            SourceType::Http => {}
        }
        let is_given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        if is_given(&self.body_function) || is_given(&self.header_function) {
            return Err(ApiError::NotYet("functions of sources (`body_function`, `header_function`)".to_owned()));
        }
        Ok(self)
    }

    /// The definition that is meant, by the one that there was.
    fn onto(self, was: Option<&Definition>) -> Result<Definition, Wrong> {
        let had_provider = was.and_then(|was| was.provider);
        let provider = match self.provider.map(|text| text.0) {
            None => had_provider,
            Some(name) if name.is_empty() => None,
            Some(name) => Some(named(&name).map_err(|why| ("provider", why))?),
        };
        let had = was.map(|was| &was.verifier);
        let verifier = match (self.verifier, had) {
            (Some(verifier), had) => verifier.read(provider, had.filter(|_| provider == had_provider))?,
            (None, Some(had)) if provider == had_provider => had.clone(),
            (None, _) if provider.is_some() => VerifierIn::of_a_provider().read(provider, None)?,
            (None, _) => Verifier::None,
        };
        let credentials = verifier.credentials();
        let text = |texts: Vec<Text>| texts.into_iter().map(|text| text.0).collect::<Vec<_>>();
        let forwarded = self.forward_headers.map(|names| ForwardedHeaders::parse(&text(names), &credentials));
        let forwarded = forwarded.transpose().map_err(|error| ("forward_headers", error.to_string()))?;
        let locations = self.idempotency_keys.map(|keys| Locations::parse(&text(keys)));
        let locations = locations.transpose().map_err(|error| ("idempotency_keys", error.to_string()))?;
        let location = self.event_type_location.map(|text| Some(text.0).filter(|text| !text.is_empty()));
        let location = location.map(|text| text.map(|text| Location::parse(&text)).transpose()).transpose();
        let event_type_at = location.map_err(|problem| ("event_type_location", problem.to_string()))?;
        let response = self.custom_response.map(CustomResponseIn::read).transpose()?;
        let name = self.name.map(|name| name.0).or_else(|| was.map(|was| was.name.clone()));
        let name = name.ok_or(("name", "is missing".to_owned()))?;
        Ok(Definition {
            name,
            provider,
            verifier,
            locations: locations.or_else(|| was.map(|was| was.locations.clone())).unwrap_or_default(),
            rejects_missing_key: self.reject_missing_idempotency_key.unwrap_or_else(|| was.is_some_and(|was| was.rejects_missing_key)),
            forwarded: forwarded.or_else(|| was.map(|was| was.forwarded.clone())).unwrap_or_default(),
            event_type_at: event_type_at.unwrap_or_else(|| was.and_then(|was| was.event_type_at.clone())),
            response: response.unwrap_or_else(|| was.and_then(|was| was.response.clone())),
            is_disabled: self.is_disabled.unwrap_or_else(|| was.is_some_and(|was| was.is_disabled)),
        })
    }
}

impl CustomResponseIn {
    fn read(self) -> Result<Option<CustomResponse>, Wrong> {
        let body = self.body.unwrap_or_default();
        if body.len() > MAX_RESPONSE || body.contains('\0') {
            return Err(("custom_response.body", format!("must be at most {MAX_RESPONSE} bytes, without NUL characters")));
        }
        let content_type = self.content_type.map(|text| text.0).filter(|text| !text.is_empty()).unwrap_or_else(|| PLAIN.to_owned());
        if content_type.len() > MAX_MEDIA_TYPE || !content_type.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(("custom_response.content_type", format!("must be at most {MAX_MEDIA_TYPE} visible characters of ASCII")));
        }
        Ok(Some(body).filter(|body| !body.is_empty()).map(|body| CustomResponse { body, content_type }))
    }
}
