//! The way to a server.

use evenkeel_balance::{Address, CheckOutcome, FailureKind};
#[cfg(feature = "tls")]
use evenkeel_transport::Secure;
use evenkeel_transport::{Clock, Dialer, Ends, Stream};

use crate::{
    failure::{Step, failed},
    http1::Http1,
    http2::Http2,
};

/// Where a server is, and how it is reached.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) address: Address,
    pub(crate) dialer: Dialer,
    #[cfg(feature = "tls")]
    pub(crate) secure: Option<std::sync::Arc<Secure>>,
    pub(crate) clock: Clock,
}

impl Route {
    /// A byte stream to it.
    pub(crate) async fn open(&self, step: &mut Step) -> Result<(Stream, Ends), CheckOutcome> {
        *step = Step::Connecting;
        let dialled = self.dialer.dial(&self.address).await;
        let (stream, ends) = dialled.map_err(|error| {
            let kind = if error.refused { FailureKind::Refused } else { FailureKind::Unreachable };
            failed(kind, error.to_string())
        })?;
        #[cfg(feature = "tls")]
        if let Some(secure) = &self.secure {
            *step = Step::Securing;
            let stream = secure.handshake(stream).await.map_err(|why| failed(FailureKind::Tls, why))?;
            return Ok((Box::new(stream), Ends { is_secure: true, ..ends }));
        }
        Ok((stream, ends))
    }

    /// The kept connection, or else a new one.
    pub(crate) async fn http1<'a>(
        &self,
        kept: &'a mut Option<Http1>,
        step: &mut Step,
    ) -> Result<&'a mut Http1, CheckOutcome> {
        let still = match kept.take() {
            Some(http1) => http1.if_kept().await,
            None => None,
        };
        let http1 = match still {
            Some(http1) => http1,
            None => Http1::open(self.open(step).await?.0).await?,
        };
        *step = Step::Asked;
        Ok(kept.insert(http1))
    }

    /// The kept connection, or else a new one.
    pub(crate) async fn http2<'a>(
        &self,
        kept: &'a mut Option<Box<Http2>>,
        step: &mut Step,
    ) -> Result<&'a mut Http2, CheckOutcome> {
        let still = match kept.take() {
            Some(http2) => http2.if_kept().await,
            None => None,
        };
        let http2 = if let Some(http2) = still {
            http2
        } else {
            let (stream, ends) = self.open(step).await?;
            Box::new(Http2::open(stream, ends, self.clock).await?)
        };
        *step = Step::Asked;
        Ok(kept.insert(http2))
    }
}
