//! What all routes have in common, said in the API's description once for all of them: how they refuse, whose key they
//! take, and how what axum says of a parameter reads in OpenAPI.

use axum::http::StatusCode;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ArrayItems, Object, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::{Components, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder, Schema};

const KEY: &str = "key";
/// A problem; and one that passes by itself, which says when to come back.
const PROBLEM: &str = "Problem";
const BUSY: &str = "Busy";

/// Completes what the routes have said of themselves.
pub fn complete(doc: &mut OpenApi) {
    doc.servers = Some(vec![Server::new("/")]);
    let components = doc.components.get_or_insert_with(Components::default);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("An API key, or the token of a page where a route takes one."));
    components.add_security_scheme(KEY, SecurityScheme::Http(bearer.build()));
    name_items(components);
    components.responses.insert(PROBLEM.into(), problem("The request was refused, or failed").into());
    components.responses.insert(BUSY.into(), busy().into());

    let paths = std::mem::take(&mut doc.paths.paths);
    for (path, mut item) in paths {
        for operation in operations(&mut item) {
            keyed(operation);
            refusals(operation);
            parameters(operation);
            let body = operation.request_body.as_mut();
            if let Some(RefOr::T(body)) = body
                && takes_nothing(body, components)
            {
                body.required = Some(Required::False);
            }
        }
        // axum's mark of a path's rest is none of OpenAPI's.
        doc.paths.paths.insert(path.replace("{*", "{"), item);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
    all.into_iter().filter_map(Option::as_mut)
}

/// utoipa writes out what a list holds; here it is the type that it is elsewhere.
fn name_items(components: &mut Components) {
    let mut found = Vec::new();
    for (list, schema) in &mut components.schemas {
        let (Some(name), RefOr::T(Schema::Object(list))) = (list.strip_prefix("List_"), schema) else {
            continue;
        };
        let Some(RefOr::T(Schema::Array(items))) = list.properties.get_mut("items") else { continue };
        let named = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(name).into()));
        if let ArrayItems::RefOrSchema(item) = std::mem::replace(&mut items.items, named) {
            found.push((name.to_owned(), *item));
        }
    }
    for (name, item) in found {
        components.schemas.entry(name).or_insert(item);
    }
}

/// A key, unless the route says otherwise.
fn keyed(operation: &mut Operation) {
    let key = || vec![SecurityRequirement::new(KEY, [] as [&str; 0])];
    operation.security.get_or_insert_with(key);
}

/// Every answer has words, every refusal has a body, and those that each route may give are there.
fn refusals(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            response.description = reason(status);
        }
        if status.starts_with('4') && response.content.is_empty() {
            *response = problem(&response.description);
        }
    }
    let takes_something = operation.parameters.is_some() || operation.request_body.is_some();
    let is_keyed = operation.security.iter().flatten().any(|s| *s != SecurityRequirement::default());
    let may = [
        ("400", PROBLEM, takes_something),
        ("401", PROBLEM, is_keyed),
        ("403", PROBLEM, is_keyed),
        ("404", PROBLEM, takes_something),
        ("422", PROBLEM, takes_something),
        ("429", BUSY, is_keyed),
        ("503", BUSY, true),
        ("default", PROBLEM, true),
    ];
    for (status, name, _) in may.into_iter().filter(|(_, _, may)| *may) {
        let shared = || RefOr::Ref(Ref::from_response_name(name));
        operation.responses.responses.entry(status.to_owned()).or_insert_with(shared);
    }
}

fn reason(status: &str) -> String {
    let status = status.parse::<u16>().ok().and_then(|s| StatusCode::from_u16(s).ok());
    status.and_then(|s| s.canonical_reason()).unwrap_or("An answer").to_owned()
}

fn problem(words: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(words).content("application/problem+json", content).build()
}

fn busy() -> Response {
    let seconds = Object::with_type(Type::Integer);
    let header = HeaderBuilder::new()
        .schema(Some(seconds))
        .description(Some("Seconds after which to ask again."))
        .build();
    let mut response =
        problem("Not now: too often, too much at once, or something that Hotbed needs is away");
    response.headers.insert("Retry-After".into(), header.into());
    response
}

/// A parameter that may be left out is left out, not null.
fn parameters(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(schema))), .. }) = parameter else {
            continue;
        };
        if let SchemaType::Array(types) = &schema.schema_type
            && let [one] = &*types.iter().filter(|t| **t != Type::Null).collect::<Vec<_>>()
        {
            schema.schema_type = SchemaType::Type((*one).clone());
        }
    }
}

/// Whether `{}` will do, and so no body at all.
fn takes_nothing(body: &RequestBody, components: &Components) -> bool {
    let Some(RefOr::T(json)) = body.content.get("application/json") else { return false };
    let named = match &json.schema {
        Some(RefOr::Ref(named)) => named.ref_location.rsplit('/').next().unwrap_or_default(),
        _ => return false,
    };
    matches!(components.schemas.get(named), Some(RefOr::T(Schema::Object(o))) if o.required.is_empty())
}
