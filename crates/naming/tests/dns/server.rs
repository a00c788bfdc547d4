//! A DNS server on a loopback port, over UDP and TCP, whose answers a test changes at will.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};

/// The largest answer that fits the UDP payload which clients announce.
const UDP_LIMIT: usize = 1232;

/// What the server does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Those of the addresses that are of the family asked for; NOERROR without records where there are none.
    Addresses {
        ttl: u32,
        addresses: Vec<IpAddr>,
    },
    Code(ResponseCode),
    Silence,
}

/// Replies by name, without the final dot, and record type. Other questions are NXDOMAIN.
type Zone = BTreeMap<(String, RecordType), Reply>;

pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    questions: watch::Sender<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) udp: usize,
    pub(crate) tcp: usize,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::new()));
        let questions = watch::Sender::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, zone.clone(), questions.clone()));
        tasks.spawn(serve_tcp(tcp, zone.clone(), questions.clone()));
        Self { address, zone, questions, _tasks: tasks }
    }

    /// Sets the reply to A and AAAA questions for `name`.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        self.set_family(name, RecordType::A, reply.clone());
        self.set_family(name, RecordType::AAAA, reply);
    }

    pub(crate) fn set_family(&self, name: &str, family: RecordType, reply: Reply) {
        self.zone.lock().unwrap().insert((name.to_owned(), family), reply);
    }

    pub(crate) fn questions(&self) -> Counts {
        *self.questions.borrow()
    }

    /// Waits for `more` questions from now on.
    pub(crate) async fn asked(&self, more: usize) {
        let goal = self.questions().udp + more;
        self.questions.subscribe().wait_for(|counts| counts.udp >= goal).await.unwrap();
    }
}

/// UDP and TCP on one free port.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        match UdpSocket::bind(tcp.local_addr().unwrap()).await {
            Ok(udp) => return (udp, tcp),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>, questions: watch::Sender<Counts>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = answer(&buffer[..length], &zone);
        questions.send_modify(|counts| counts.udp += 1);
        if let Some(message) = answer {
            let mut bytes = message.to_vec().unwrap();
            if bytes.len() > UDP_LIMIT {
                bytes = message.truncate().to_vec().unwrap();
            }
            socket.send_to(&bytes, peer).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>, questions: watch::Sender<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (zone, questions) = (zone.clone(), questions.clone());
        connections.spawn(async move {
            // The client closes when it has its answer.
            let _ = serve_connection(stream, &zone, &questions).await;
        });
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    zone: &Mutex<Zone>,
    questions: &watch::Sender<Counts>,
) -> io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        let answer = answer(&question, zone);
        questions.send_modify(|counts| counts.tcp += 1);
        if let Some(message) = answer {
            let bytes = message.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await?;
            stream.write_all(&bytes).await?;
        }
    }
}

fn answer(question: &[u8], zone: &Mutex<Zone>) -> Option<Message> {
    let request = Message::from_vec(question).unwrap();
    let query = request.queries[0].clone();
    let name = query.name().to_string().trim_end_matches('.').to_owned();
    let reply = zone.lock().unwrap().get(&(name, query.query_type())).cloned();
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.add_query(query.clone());
    match reply.unwrap_or(Reply::Code(ResponseCode::NXDomain)) {
        Reply::Silence => return None,
        Reply::Code(code) => message.metadata.response_code = code,
        Reply::Addresses { ttl, addresses } => {
            let wanted = addresses.into_iter().filter(|ip| ip.is_ipv4() == (query.query_type() == RecordType::A));
            message.add_answers(wanted.map(|ip| Record::from_rdata(query.name().clone(), ttl, RData::from(ip))));
        }
    }
    Some(message)
}
