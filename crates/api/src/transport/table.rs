//! The route table: each operation with the permission that it asks for. Nobody else can make an operation reachable: handlers are
//! written for [`Context`], and the only router that holds one is made here, with the checks of each row around it.

use std::future::Future;

use axum::{Router, middleware::from_fn_with_state};
use domain::caller::Permission;
use utoipa::openapi::{OpenApi, RefOr, path::Parameter, security::SecurityRequirement};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};

use super::{
    admission::{Rules, admit},
    call::Call,
    dialect::Dialect,
    query::{Asked, Question},
    reply::Replies,
};
use crate::{context::Context, error::ApiResult};

/// The name of the security scheme, as in the Svix document.
pub(crate) const BEARER: &str = "HTTPBearer";

/// The operations of a dialect.
pub(crate) struct Table {
    dialect: &'static dyn Dialect,
    rows: Vec<(Permission, UtoipaMethodRouter<Context>)>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(dialect: &'static dyn Dialect) -> Self {
        Self { dialect, rows: Vec::new() }
    }

    /// With a further operation, for callers that have this permission.
    pub(crate) fn allow(mut self, permission: Permission, operation: UtoipaMethodRouter<Context>) -> Self {
        self.rows.push((permission, operation));
        self
    }

    /// The routes, with the checks of each row around them.
    pub(crate) fn router(self, context: &Context) -> Router {
        let dialect = self.dialect;
        let router = self.rows.into_iter().fold(OpenApiRouter::default(), |router, (permission, operation)| {
            let rules = Rules { permission, dialect };
            router.routes(operation.map(|methods| methods.route_layer(from_fn_with_state((context.clone(), rules), admit))))
        });
        router.with_state(context.clone()).into()
    }

    /// Adds the operations to a document, each with its permission.
    pub(crate) fn document(self, preamble: OpenApi) -> OpenApi {
        let router = self.rows.into_iter().fold(OpenApiRouter::with_openapi(preamble), |router, (permission, mut operation)| {
            for item in operation.1.paths.values_mut() {
                for described in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten() {
                    described.security = Some(vec![SecurityRequirement::new(BEARER, [permission.name()])]);
                }
            }
            router.routes(operation)
        });
        router.into_openapi()
    }
}

/// An operation of the route table, described by its handler's documentation and signature.
macro_rules! operation {
    ($handler:path) => {
        $crate::transport::table::described(&$handler, utoipa_axum::routes!($handler))
    };
}
pub(crate) use operation;

/// Adds to the document what the signature of a handler says: the query and the answers.
pub(crate) fn described<A, H: Handler<A>>(_: &H, operation: UtoipaMethodRouter<Context>) -> UtoipaMethodRouter<Context> {
    let (mut schemas, mut paths, methods) = operation;
    for item in paths.paths.values_mut() {
        for described in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten() {
            let parameters = H::query();
            if !parameters.is_empty() {
                described.parameters.get_or_insert_default().extend(parameters.into_iter().map(RefOr::T));
            }
            H::Reply::document(described, &mut schemas);
        }
    }
    (schemas, paths, methods)
}

/// A function that carries an operation out.
pub(crate) trait Handler<Arguments> {
    /// What it answers.
    type Reply: Replies;

    /// What it can be asked in the query.
    fn query() -> Vec<Parameter>;
}

impl<F, W, R> Handler<(Call,)> for F
where
    F: Fn(Call) -> W,
    W: Future<Output = ApiResult<R>>,
    R: Replies,
{
    type Reply = R;

    fn query() -> Vec<Parameter> {
        Vec::new()
    }
}

impl<F, W, R, Q> Handler<(Call, Asked<Q>)> for F
where
    F: Fn(Call, Asked<Q>) -> W,
    W: Future<Output = ApiResult<R>>,
    R: Replies,
    Q: Question,
{
    type Reply = R;

    fn query() -> Vec<Parameter> {
        Q::document()
    }
}
