use evenkeel_proto::channelz::{
    GetChannelRequest, GetChannelResponse, GetServerRequest, GetServerResponse, GetServerSocketsRequest,
    GetServerSocketsResponse, GetServersRequest, GetServersResponse, GetSocketRequest, GetSocketResponse,
    GetSubchannelRequest, GetSubchannelResponse, GetTopChannelsRequest, GetTopChannelsResponse,
    channelz_server::Channelz as Service,
};
use tonic::{Request, Response, Status};

use crate::{Channelz, view::View};

/// The most channels of a page, and how many there are where the request does not say.
const PAGE: usize = 100;

/// Answers `grpc.channelz.v1.Channelz`.
#[derive(Debug)]
pub struct ChannelzService {
    channelz: Channelz,
}

impl ChannelzService {
    pub(crate) fn new(channelz: Channelz) -> Self {
        Self { channelz }
    }

    /// What a channel has now; `None` once it is gone.
    async fn view(&self, id: i64) -> Option<View> {
        let (name, channel) = self.channelz.registry().channel(id)?;
        let explanation = channel.explain().await?;
        let sockets = channel.sockets();
        let ids = self.channelz.registry().number(id, &explanation.report, &sockets);
        Some(View { id, name, channel, explanation, sockets, ids })
    }
}

#[tonic::async_trait]
impl Service for ChannelzService {
    async fn get_top_channels(
        &self,
        request: Request<GetTopChannelsRequest>,
    ) -> Result<Response<GetTopChannelsResponse>, Status> {
        let GetTopChannelsRequest { start_channel_id, max_results } = request.into_inner();
        let limit = page("start_channel_id", start_channel_id, max_results)?;
        let mut ids = self.channelz.registry().channels_from(start_channel_id).into_iter();
        let mut channel = Vec::new();
        while channel.len() < limit
            && let Some(id) = ids.next()
        {
            channel.extend(self.view(id).await.map(|view| view.channel()));
        }
        Ok(Response::new(GetTopChannelsResponse { channel, end: ids.next().is_none() }))
    }

    async fn get_servers(&self, request: Request<GetServersRequest>) -> Result<Response<GetServersResponse>, Status> {
        let GetServersRequest { start_server_id, max_results } = request.into_inner();
        page("start_server_id", start_server_id, max_results)?;
        Ok(Response::new(GetServersResponse { server: Vec::new(), end: true }))
    }

    async fn get_server(&self, request: Request<GetServerRequest>) -> Result<Response<GetServerResponse>, Status> {
        Err(unknown("server", request.get_ref().server_id))
    }

    async fn get_server_sockets(
        &self,
        request: Request<GetServerSocketsRequest>,
    ) -> Result<Response<GetServerSocketsResponse>, Status> {
        let GetServerSocketsRequest { server_id, start_socket_id, max_results } = request.into_inner();
        page("start_socket_id", start_socket_id, max_results)?;
        Err(unknown("server", server_id))
    }

    async fn get_channel(&self, request: Request<GetChannelRequest>) -> Result<Response<GetChannelResponse>, Status> {
        let id = request.get_ref().channel_id;
        let view = self.view(id).await.ok_or_else(|| unknown("channel", id))?;
        Ok(Response::new(GetChannelResponse { channel: Some(view.channel()) }))
    }

    async fn get_subchannel(
        &self,
        request: Request<GetSubchannelRequest>,
    ) -> Result<Response<GetSubchannelResponse>, Status> {
        let id = request.get_ref().subchannel_id;
        let gone = || unknown("subchannel", id);
        let channel = self.channelz.registry().channel_of_subchannel(id).ok_or_else(gone)?;
        let view = self.view(channel).await.ok_or_else(gone)?;
        Ok(Response::new(GetSubchannelResponse { subchannel: Some(view.subchannel(id).ok_or_else(gone)?) }))
    }

    async fn get_socket(&self, request: Request<GetSocketRequest>) -> Result<Response<GetSocketResponse>, Status> {
        let id = request.get_ref().socket_id;
        let gone = || unknown("socket", id);
        let channel = self.channelz.registry().channel_of_socket(id).ok_or_else(gone)?;
        let view = self.view(channel).await.ok_or_else(gone)?;
        Ok(Response::new(GetSocketResponse { socket: Some(view.socket(id).ok_or_else(gone)?) }))
    }
}

/// How long a page may be.
fn page(start_field: &str, start: i64, max_results: i64) -> Result<usize, Status> {
    if start < 0 {
        return Err(Status::invalid_argument(format!("{start_field} is {start}; it may not be negative")));
    }
    match usize::try_from(max_results) {
        Err(_) => Err(Status::invalid_argument(format!("max_results is {max_results}; it may not be negative"))),
        Ok(0) => Ok(PAGE),
        Ok(asked) => Ok(asked.min(PAGE)),
    }
}

fn unknown(what: &str, id: i64) -> Status {
    Status::not_found(format!("no {what} has the id {id}; it may be gone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_long_as_asked_for_up_to_a_limit() {
        let length = |start, max| page("start", start, max).map_err(|status| status.code());
        assert_eq!((length(0, 0).ok(), length(7, 3).ok(), length(7, i64::MAX).ok()), (Some(PAGE), Some(3), Some(PAGE)));
        assert_eq!(length(-1, 0), Err(tonic::Code::InvalidArgument));
        assert_eq!(length(0, -1), Err(tonic::Code::InvalidArgument));
    }
}
