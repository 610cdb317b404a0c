//! What an answer costs: questions over UDP from many clients on loopback, answered by one thread out of a view with
//! 5,000 endpoints. Counted by the processor's time of that thread, since other work may share the machine.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::{
    error::Error,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use casemate_dns::{DnsConfig, Server};
use casemate_model::{
    ResourceId,
    inbound::WorkspaceAccess,
    network::{NetworkSnapshot, WorkspaceView},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const ENDPOINTS: usize = 5000;
const IN_FLIGHT: usize = 64;
const LENGTH: Duration = Duration::from_secs(4);

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, (tell, told)) = (CancellationToken::new(), mpsc::channel());
    let stopping = stop.clone();
    let server = thread::spawn(move || serve(&tell, stopping).expect("the server runs"));
    let address = told.recv()?;
    for (what, name) in [
        ("an address", "ep-{}.local.inference.casemate.test."),
        ("a wildcard's address", "account-{}.blob.core.casemate.test."),
        ("no such name", "none-{}.local.inference.casemate.test."),
        ("refused", "www-{}.example.org."),
    ] {
        let before: u64 = processor_time(&server)?;
        let (answers, took) = ask(address, name)?;
        let used = processor_time(&server)?.saturating_sub(before).max(1);
        let per_core = answers as f64 / (used as f64 / 1e9);
        println!(
            "{what:<22} {:>9.0} answers/s   {per_core:>9.0} for a whole core",
            answers as f64 / took.as_secs_f64()
        );
    }
    stop.cancel();
    Ok(())
}

/// Serves in this thread; tells its address.
fn serve(tell: &mpsc::Sender<SocketAddr>, stop: CancellationToken) -> Result<(), Box<dyn Error + Send + Sync>> {
    let id = ResourceId::parse(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w",
    )?;
    let workspace = WorkspaceView {
        id,
        guid: String::new(),
        access: WorkspaceAccess::default(),
        endpoints: (0..ENDPOINTS).map(|n| format!("ep-{n}")).collect(),
    };
    let snapshot = NetworkSnapshot { workspaces: vec![workspace], ..NetworkSnapshot::default() };
    let (_publish, snapshot) = watch::channel(Arc::new(snapshot));
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut config = DnsConfig::new("casemate.test".to_owned(), "local".to_owned(), loopback);
    config.listen = vec![SocketAddr::new(loopback, 0)];
    config.answers_per_second = u32::MAX / 4;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let server = Server::new(config, snapshot).await?;
        for address in server.addresses() {
            tell.send(address)?;
        }
        server.serve(stop).await;
        Ok(())
    })
}

/// Asks with many questions in flight; how many were answered, and in what time.
fn ask(server: SocketAddr, pattern: &str) -> Result<(usize, Duration), Box<dyn Error>> {
    let questions: Vec<Vec<u8>> = (0..ENDPOINTS)
        .map(|n| {
            let mut message = Message::new(7, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_ascii(pattern.replace("{}", &n.to_string()))?, RecordType::A));
            Ok(message.to_vec()?)
        })
        .collect::<Result<_, Box<dyn Error>>>()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (started, mut answers, mut buffer) = (Instant::now(), 0, [0; 2048]);
    let mut next = questions.iter().cycle();
    while started.elapsed() < LENGTH {
        for question in next.by_ref().take(IN_FLIGHT) {
            socket.send(question)?;
        }
        for _ in 0..IN_FLIGHT {
            match socket.recv(&mut buffer) {
                Ok(_) => answers += 1,
                Err(_) => break,
            }
        }
    }
    Ok((answers, started.elapsed()))
}

/// The time that the busiest other thread of this process has spent on a processor, in nanoseconds.
fn processor_time<T>(server: &thread::JoinHandle<T>) -> Result<u64, Box<dyn Error>> {
    assert!(!server.is_finished(), "the server ended");
    let own = fs::read_link("/proc/thread-self")?;
    let mut most = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        if own.file_name() != Some(&thread.file_name()) {
            let used = fs::read_to_string(thread.path().join("schedstat"))?;
            most = most.max(used.split(' ').next().unwrap_or_default().parse()?);
        }
    }
    Ok(most)
}
