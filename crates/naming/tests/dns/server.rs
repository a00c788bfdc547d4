//! A DNS server on a loopback port, over UDP and TCP, whose answers a test changes at will.
//!
//! It writes the records of its answers itself, with the shortest form of their name: hickory's encoder stops to
//! shorten names after 120 of them, so that 3000 addresses would not fit into a message.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{SRV, TXT},
    },
    serialize::binary::{BinEncodable, BinEncoder},
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
    Records {
        ttl: u32,
        records: Vec<RData>,
    },
}

/// The answer to a question for SRV records: priority, weight, port and target of each.
pub(crate) fn services(ttl: u32, records: &[(u16, u16, u16, &str)]) -> Reply {
    let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
        RData::SRV(SRV::new(*priority, *weight, *port, Name::from_ascii(target).unwrap()))
    };
    Reply::Records { ttl, records: records.iter().map(record).collect() }
}

/// The answer to a question for TXT records: the text of each, split as long ones have to be.
pub(crate) fn texts(ttl: u32, records: &[&str]) -> Reply {
    let record = |text: &&str| RData::TXT(TXT::from_bytes(text.as_bytes().chunks(20).collect()));
    Reply::Records { ttl, records: records.iter().map(record).collect() }
}

/// A name without its final dot, and a record type.
type Question = (String, RecordType);

#[derive(Default)]
struct Zone {
    /// Other questions are NXDOMAIN.
    replies: BTreeMap<Question, Reply>,
    log: Vec<Question>,
}

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
        let zone = Arc::new(Mutex::new(Zone::default()));
        let questions = watch::Sender::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, zone.clone(), questions.clone()));
        tasks.spawn(serve_tcp(tcp, zone.clone(), questions.clone()));
        Self { address, zone, questions, _tasks: tasks }
    }

    /// Sets the reply to A and AAAA questions for `name`.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        self.set_kind(name, RecordType::A, reply.clone());
        self.set_kind(name, RecordType::AAAA, reply);
    }

    pub(crate) fn set_kind(&self, name: &str, kind: RecordType, reply: Reply) {
        self.zone.lock().unwrap().replies.insert((name.to_owned(), kind), reply);
    }

    /// What was asked so far, in order.
    pub(crate) fn log(&self) -> Vec<Question> {
        self.zone.lock().unwrap().log.clone()
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
        if let Some((message, records)) = answer {
            let whole = to_bytes(&message, &records);
            let bytes = if whole.len() > UDP_LIMIT { to_bytes(&message.truncate(), &[]) } else { whole };
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
        if let Some((message, records)) = answer {
            let bytes = to_bytes(&message, &records);
            stream.write_u16(bytes.len().try_into().unwrap()).await?;
            stream.write_all(&bytes).await?;
        }
    }
}

/// The answer without its records, and the records.
fn answer(question: &[u8], zone: &Mutex<Zone>) -> Option<(Message, Vec<Record>)> {
    let request = Message::from_vec(question).unwrap();
    let query = request.queries[0].clone();
    let asked = (query.name().to_string().trim_end_matches('.').to_owned(), query.query_type());
    let reply = {
        let mut zone = zone.lock().unwrap();
        zone.log.push(asked.clone());
        zone.replies.get(&asked).cloned()
    };
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.add_query(query.clone());
    let record = |ttl, data| Record::from_rdata(query.name().clone(), ttl, data);
    let records = match reply.unwrap_or(Reply::Code(ResponseCode::NXDomain)) {
        Reply::Silence => return None,
        Reply::Code(code) => {
            message.metadata.response_code = code;
            Vec::new()
        }
        Reply::Addresses { ttl, addresses } => {
            let wanted = addresses.into_iter().filter(|ip| ip.is_ipv4() == (asked.1 == RecordType::A));
            wanted.map(|ip| record(ttl, RData::from(ip))).collect()
        }
        Reply::Records { ttl, records } => records.into_iter().map(|data| record(ttl, data)).collect(),
    };
    Some((message, records))
}

fn to_bytes(message: &Message, records: &[Record]) -> Vec<u8> {
    const COUNT_OF_ANSWERS: std::ops::Range<usize> = 6..8;
    /// The name of the question, which comes after the header.
    const SAME_NAME: [u8; 2] = [0xC0, 12];

    let mut bytes = message.to_vec().unwrap();
    bytes[COUNT_OF_ANSWERS].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    for record in records {
        let mut data = Vec::new();
        record.data.emit(&mut BinEncoder::new(&mut data)).unwrap();
        bytes.extend(SAME_NAME);
        bytes.extend(u16::from(record.record_type()).to_be_bytes());
        bytes.extend(u16::from(record.dns_class).to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    bytes
}
