//! gRPC over a runtime's Unix socket: one HTTP/2 connection and raw messages. It is never made anew behind the caller's back: once it is broken, so is
//! everything that is asked through it, and whoever asks knows that what it heard before is old.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status, Streaming};

use super::super::cut;
use super::super::worker::Error;

/// Largest message that is read, in bytes: the kubelet's own bound, so that a node that works for it works here.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// What a runtime may send ahead of its reader, in bytes: a stream, and all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);
/// Largest head of an answer, in bytes.
const MAX_HEAD: u32 = 16 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Channel {
    sender: Sender,
    /// What moves its bytes; ends with it.
    _connection: AbortOnDropHandle<()>,
    /// Cancelled once the connection has ended.
    ended: CancellationToken,
}

impl Channel {
    pub(super) async fn connect(socket: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|error| Error::Failed(format!("cannot connect: {error}")))?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1);
        builder.max_header_list_size(MAX_HEAD);
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (send, connection) =
            made.map_err(|error| Error::Failed(format!("it does not speak HTTP/2: {error}")))?;
        let ended = CancellationToken::new();
        let told = ended.clone().drop_guard();
        let connection = tokio::spawn(async move {
            let _told = told;
            // Each request that was under way hears of it.
            let _ = connection.await;
        });
        Ok(Self { sender: Sender(send), _connection: AbortOnDropHandle::new(connection), ended })
    }

    /// Waits until the runtime has closed the connection.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Asks, and waits for the one answer.
    pub(super) async fn unary(
        &self,
        method: &'static str,
        request: Vec<u8>,
    ) -> Result<Bytes, Status> {
        let mut grpc = self.grpc().await?;
        let answer = grpc.unary(tonic::Request::new(request), path(method), Raw).await?;
        Ok(answer.into_inner())
    }

    /// Asks for a stream of messages. A server may say nothing at all before the first of them.
    pub(super) async fn stream(
        &self,
        method: &'static str,
        request: Vec<u8>,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.grpc().await?;
        let answer = grpc.server_streaming(tonic::Request::new(request), path(method), Raw).await?;
        Ok(answer.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Sender>, Status> {
        let mut grpc = Grpc::with_origin(self.sender.clone(), Uri::from_static("http://localhost"))
            .max_decoding_message_size(MAX_MESSAGE);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(format!("the connection is gone: {error}")))?;
        Ok(grpc)
    }
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

/// Why a request was not answered as it should.
pub(super) fn refusal(status: &Status) -> Error {
    let said = cut(status.message());
    match status.code() {
        Code::Unimplemented => Error::Unsupported,
        // What the length of a message is beyond the bound.
        Code::OutOfRange => Error::Malformed(said),
        code => Error::Failed(format!("{code:?}: {said}")),
    }
}

#[derive(Debug, Clone)]
struct Sender(SendRequest<Body>);

type Answer = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

impl tower_service::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        Box::pin(self.0.send_request(request))
    }
}

/// Hands messages over as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
