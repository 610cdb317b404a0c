//! From a storage request to its answer.

use std::{fmt::Display, io, ops::Range};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, RANGE, WWW_AUTHENTICATE},
    request::Parts,
};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use quick_xml::Writer;

use crate::{
    blocks::{self, BlockId},
    conditions::Conditions,
    content::{Blob, Described, http_date, metadata_of},
    error::BlobError,
    listing::{self, Listing, element},
    name::{BlobName, ContainerName, Target},
    query::Query,
    sas::Grant,
    store::Inner,
    upload, write,
};

/// The body of an answer; large ones stream from disk.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// One authorized request.
struct Call<'a> {
    inner: &'a Inner,
    parts: Parts,
    query: Query,
    grant: Grant,
}

type Answer = Result<Response<Body>, BlobError>;

/// Answers a request; every failure becomes an answer in the storage service's shape.
pub(crate) async fn handle<B>(inner: &Inner, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Display,
{
    let (parts, body) = request.into_parts();
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    let request_id = uuid::Uuid::new_v4().to_string();
    let now = inner.clock.now();
    let mut response = match dispatch(inner, parts, body).await {
        Ok(response) => response,
        Err(error) => show_error(&error, &request_id, &now.to_string(), method == Method::HEAD),
    };
    let version = headers.get("x-ms-version").cloned();
    let client = headers.get("x-ms-client-request-id").filter(|id| id.len() <= 1024).cloned();
    let shown = response.headers_mut();
    shown.insert("x-ms-version", version.unwrap_or(HeaderValue::from_static("2024-11-04")));
    if let Some(client) = client {
        shown.insert("x-ms-client-request-id", client);
    }
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        shown.insert("x-ms-request-id", request_id);
    }
    if let Ok(date) = HeaderValue::from_str(&http_date(now.as_second())) {
        shown.insert("date", date);
    }
    response
}

async fn dispatch<B>(inner: &Inner, parts: Parts, body: B) -> Answer
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Display,
{
    // Clients ask whether `dir/` is a blob before they list it. No blob has such a name, so the answer is "not there".
    let path = parts.uri.path();
    let reading = matches!(parts.method, Method::GET | Method::HEAD);
    let directory = path.strip_suffix('/').filter(|_| reading);
    let target = Target::parse(directory.unwrap_or(path))?;
    let query = Query::parse(parts.uri.query())?;
    if query.get("sig").is_none() {
        return Err(BlobError::new(
            StatusCode::UNAUTHORIZED,
            "NoAuthenticationInformation",
            "The request carries no shared access signature. Ask the workspace's datastore for one (listSecrets).",
        ));
    }
    let grant = inner.signer.check(&query, &target, inner.clock.now())?;
    if directory.is_some() && matches!(target, Target::Blob(..)) {
        return Err(BlobError::blob_not_found(path));
    }
    let call = Call { inner, parts, query, grant };
    match target {
        Target::Container(container) => call.container(&container).await,
        Target::Blob(container, name) => {
            call.need_container(&container).await?;
            call.blob(&container, &name, body).await
        }
    }
}

impl Call<'_> {
    async fn need_container(&self, container: &ContainerName) -> Result<(), BlobError> {
        if self.inner.disk.container_exists(container).await?.is_some() {
            return Ok(());
        }
        let message = format!("The specified container does not exist: '{container}'.");
        Err(BlobError::new(StatusCode::NOT_FOUND, "ContainerNotFound", message))
    }

    fn unsupported(&self) -> BlobError {
        let (method, comp) = (&self.parts.method, self.query.text("comp"));
        BlobError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("This store does not offer {method} with comp='{comp}' on this resource."),
        )
    }

    // --- containers ---

    async fn container(&self, container: &ContainerName) -> Answer {
        if !self.query.is("restype", "container") {
            return Err(self.unsupported());
        }
        let permissions = self.grant.permissions;
        match (&self.parts.method, self.query.text("comp")) {
            (&Method::PUT, "") => {
                self.grant.need(permissions.create && self.grant.directory.is_empty(), "make a container")?;
                if self.inner.disk.container_create(container).await? {
                    return Ok(self.container_shown(container, StatusCode::CREATED).await);
                }
                let message = format!("The specified container already exists: '{container}'.");
                Err(BlobError::new(StatusCode::CONFLICT, "ContainerAlreadyExists", message))
            }
            (&Method::GET, "list") => {
                self.grant.need(permissions.list, "list blobs")?;
                self.need_container(container).await?;
                let asked = Listing::from_query(&self.query, self.grant.directory.clone())?;
                let page = listing::page(self.inner, container, &asked).await?;
                Ok(xml(StatusCode::OK, listing::show(self.inner, container, &asked, page).await?))
            }
            (&Method::GET | &Method::HEAD, "" | "metadata") => {
                self.grant.need(permissions.read || permissions.list, "read the container's properties")?;
                self.need_container(container).await?;
                Ok(self.container_shown(container, StatusCode::OK).await)
            }
            _ => Err(self.unsupported()),
        }
    }

    async fn container_shown(&self, container: &ContainerName, status: StatusCode) -> Response<Body> {
        let mut response = empty(status);
        if let Ok(Some(meta)) = self.inner.disk.container_exists(container).await {
            let blob = Blob { meta, properties: None };
            stamp(response.headers_mut(), &blob);
        }
        response.headers_mut().insert("x-ms-lease-status", HeaderValue::from_static("unlocked"));
        response.headers_mut().insert("x-ms-lease-state", HeaderValue::from_static("available"));
        response
    }

    // --- blobs ---

    async fn blob<B>(&self, container: &ContainerName, name: &BlobName, body: B) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Display,
    {
        let permissions = self.grant.permissions;
        match (&self.parts.method, self.query.text("comp")) {
            (&Method::HEAD | &Method::GET, "" | "metadata") => {
                self.grant.need(permissions.read, "read blobs")?;
                self.read(container, name).await
            }
            (&Method::GET, "blocklist") => {
                self.grant.need(permissions.read, "read blobs")?;
                let which = self.query.text("blocklisttype");
                Ok(xml(StatusCode::OK, blocks::show(self.inner, container, name, which).await?))
            }
            (&Method::PUT, "") => self.put(container, name, body).await,
            (&Method::PUT, "block") => self.put_block(container, name, body).await,
            (&Method::PUT, "blocklist") => self.put_block_list(container, name, body).await,
            (&Method::PUT, "metadata") => {
                self.grant.need(permissions.write, "write metadata")?;
                let metadata = metadata_of(&self.parts.headers)?;
                let conditions = Conditions::from_headers(&self.parts.headers)?;
                let blob = write::set_metadata(self.inner, container, name, metadata, &conditions).await?;
                Ok(stamped(StatusCode::OK, &blob))
            }
            (&Method::DELETE, "") => {
                self.grant.need(permissions.delete, "delete blobs")?;
                let conditions = Conditions::from_headers(&self.parts.headers)?;
                write::delete(self.inner, container, name, &conditions).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
            _ => Err(self.unsupported()),
        }
    }

    async fn read(&self, container: &ContainerName, name: &BlobName) -> Answer {
        let blob = self.inner.disk.blob(container, name).await?;
        let blob = blob.ok_or_else(|| BlobError::blob_not_found(name.as_str()))?;
        Conditions::from_headers(&self.parts.headers)?.check_read(&blob)?;
        let size = blob.meta.size;
        let head = self.parts.method == Method::HEAD;
        let properties_only = head || self.query.is("comp", "metadata");
        let asked = if properties_only { None } else { range_of(&self.parts.headers, size)? };
        let range = asked.clone().unwrap_or(0..size);
        let mut response = if properties_only {
            empty(StatusCode::OK)
        } else {
            let bytes = self.inner.disk.read(&blob.meta.location, range.clone()).await?;
            Response::new(BodyExt::boxed_unsync(StreamBody::new(bytes.map(|part| part.map(Frame::data)))))
        };
        let headers = response.headers_mut();
        *headers = blob.show(asked.is_none());
        if head || !properties_only {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        }
        if asked.is_some() {
            let shown = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(&shown).expect("digits are a header value"));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(response)
    }

    fn check_write(&self) -> Result<(), BlobError> {
        let permissions = self.grant.permissions;
        self.grant.need(permissions.write || permissions.create, "write blobs")
    }

    async fn receive<B>(&self, body: B, limit: u64) -> Result<(upload::Staged, Option<String>), BlobError>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Display,
    {
        let expected = upload::Expected::from_headers(&self.parts.headers, limit)?;
        let idle = self.inner.config.upload_idle;
        let busy = || {
            BlobError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServerBusy",
                "Too many uploads at once; try again shortly.",
            )
        };
        let permit = tokio::time::timeout(idle, self.inner.uploads.acquire()).await;
        let _permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        let staged = upload::receive(&self.inner.disk, body, &expected, idle).await?;
        Ok((staged, expected.md5_text()))
    }

    async fn put<B>(&self, container: &ContainerName, name: &BlobName, body: B) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Display,
    {
        self.check_write()?;
        if self.parts.headers.contains_key("x-ms-copy-source") {
            return Err(self.unsupported());
        }
        let kind = self.parts.headers.get("x-ms-blob-type").map(|kind| kind.to_str().unwrap_or_default());
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("BlockBlob")) {
            return Err(BlobError::header("x-ms-blob-type", "only BlockBlob is stored here"));
        }
        let conditions = Conditions::from_headers(&self.parts.headers)?;
        // Refuses early what would be refused at the end, so that no body is sent in vain.
        conditions.check_write(self.inner.disk.blob(container, name).await?.as_ref(), name.as_str())?;
        let mut described = Described::from_headers(&self.parts.headers, true)?;
        let (staged, md5) = self.receive(body, self.inner.config.max_blob_bytes).await?;
        described.md5 = described.md5.or(md5);
        let blob =
            write::publish(self.inner, (container, name), &staged, (described, None), &conditions, &self.grant).await?;
        Ok(stamped(StatusCode::CREATED, &blob))
    }

    async fn put_block<B>(&self, container: &ContainerName, name: &BlobName, body: B) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Display,
    {
        self.check_write()?;
        let id = BlockId::parse(self.query.text("blockid"))?;
        let (staged, _) = self.receive(body, self.inner.config.max_block_bytes).await?;
        blocks::keep(&self.inner.disk, container, name, &id, &staged).await?;
        Ok(written(StatusCode::CREATED))
    }

    async fn put_block_list<B>(&self, container: &ContainerName, name: &BlobName, body: B) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Display,
    {
        self.check_write()?;
        let conditions = Conditions::from_headers(&self.parts.headers)?;
        let described = Described::from_headers(&self.parts.headers, false)?;
        let mut body = std::pin::pin!(Limited::new(body.map_err(|error| error.to_string()), blocks::MAX_LIST_BYTES));
        let collecting = tokio::time::timeout(self.inner.config.upload_idle, body.as_mut().collect()).await;
        let text = collecting.map_err(|_| BlobError::bad("OperationTimedOut", "The block list stalled."))?;
        let text =
            text.map_err(|error| BlobError::bad("InvalidInput", format!("The block list broke off: {error}.")))?;
        let list = blocks::parse_list(&text.to_bytes())?;
        let (staged, committed, used) = blocks::assemble(self.inner, container, name, &list).await?;
        let what = (described, Some(committed));
        let blob = write::publish(self.inner, (container, name), &staged, what, &conditions, &self.grant).await?;
        for block in used {
            // The blob is in place: a block left behind only costs space until the next sweep.
            if let Err(error) = self.inner.disk.delete(&block).await {
                tracing::warn!(%error, "a used block could not be removed");
            }
        }
        Ok(stamped(StatusCode::CREATED, &blob))
    }
}

/// The bytes asked for by `x-ms-range` or `Range`; nothing for all of them.
fn range_of(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, BlobError> {
    let given = headers.get("x-ms-range").or_else(|| headers.get(RANGE));
    let Some(given) = given.and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let Some((first, last)) = given.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Err(BlobError::header("Range", "it should read bytes=<first>-[<last>]"));
    };
    let number = |text: &str| {
        text.trim().parse::<u64>().map_err(|_| BlobError::header("Range", "it should read bytes=<first>-[<last>]"))
    };
    let (start, end) = match (first.trim(), last.trim()) {
        ("", last) => (size.saturating_sub(number(last)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(size)),
    };
    if start >= end {
        return Err(BlobError::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "InvalidRange",
            format!("The range specified is invalid for the current size of the resource: '{given}' of {size} bytes."),
        ));
    }
    Ok(Some(start..end))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn xml(status: StatusCode, body: String) -> Response<Body> {
    text(status, "application/xml", body)
}

fn written(status: StatusCode) -> Response<Body> {
    let mut response = empty(status);
    response.headers_mut().insert("x-ms-request-server-encrypted", HeaderValue::from_static("false"));
    response
}

fn stamp(headers: &mut HeaderMap, blob: &Blob) {
    if let (Ok(etag), Ok(modified)) =
        (HeaderValue::from_str(&blob.etag()), HeaderValue::from_str(&http_date(blob.modified())))
    {
        headers.insert(ETAG, etag);
        headers.insert(LAST_MODIFIED, modified);
    }
}

fn stamped(status: StatusCode, blob: &Blob) -> Response<Body> {
    let mut response = written(status);
    stamp(response.headers_mut(), blob);
    response
}

fn show_error(error: &BlobError, request_id: &str, now: &str, head: bool) -> Response<Body> {
    let shown: String = error.message.chars().map(|c| if listing::is_xml(c) { c } else { '\u{fffd}' }).collect();
    let message = format!("{shown}\nRequestId:{request_id}\nTime:{now}");
    let mut writer = Writer::new(Vec::new());
    let shown = writer.create_element("Error").write_inner_content(|writer| {
        element(writer, "Code", error.code)?;
        element(writer, "Message", &message)
    });
    let shown = shown.map(|_| ());
    let body = shown.is_ok().then(|| listing::document(writer).ok()).flatten();
    let bodiless = head || error.status == StatusCode::NOT_MODIFIED;
    let mut response = match body.filter(|_| !bodiless) {
        Some(body) => xml(error.status, body),
        None => empty(error.status),
    };
    response.headers_mut().insert(HeaderName::from_static("x-ms-error-code"), HeaderValue::from_static(error.code));
    if error.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("SharedAccessSignature"));
    }
    response
}
