//! The promise of a commit that is already in the queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use domain::{Error, Result};
use tokio::sync::oneshot;

use crate::writer::stopped;

/// Resolves when what was submitted is committed, or was refused. Dropping it takes nothing back.
#[must_use = "a submitted transaction may still be refused"]
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Known(Option<Result<()>>),
    Waiting(oneshot::Receiver<Result<u64>>),
}

impl Receipt {
    pub(crate) fn known(result: Result<()>) -> Self {
        Self(State::Known(Some(result)))
    }

    pub(crate) fn waiting(answer: oneshot::Receiver<Result<u64>>) -> Self {
        Self(State::Waiting(answer))
    }
}

impl Future for Receipt {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(result) => Poll::Ready(
                result.take().unwrap_or_else(|| Err(Error::permanent("a receipt was asked twice"))),
            ),
            State::Waiting(answer) => {
                Pin::new(answer).poll(cx).map(|done| done.unwrap_or_else(|_| Err(stopped())).map(drop))
            }
        }
    }
}
