//! Servers on loopback: a registry made by hand, and a line that breaks.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// An answer: status, headers, body.
pub type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// A server that answers by a function and remembers what it was asked. Its threads end with the process.
pub struct HandMade {
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl HandMade {
    pub fn serve(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> HandMade {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    let mut headers = HashMap::new();
                    loop {
                        let mut header = String::new();
                        reader.read_line(&mut header).unwrap();
                        let Some((name, value)) = header.trim().split_once(": ") else { break };
                        headers.insert(name.to_ascii_lowercase(), value.to_owned());
                    }
                    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                    let mut body = vec![0; length];
                    if reader.read_exact(&mut body).is_err() {
                        return;
                    }
                    let asked = Asked { line: line.trim().to_owned(), headers, body };
                    log.lock().unwrap().push(asked.clone());
                    let (status, headers, body) = answer(&asked);
                    let mut head =
                        format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
                    for (name, value) in headers {
                        head.push_str(&format!("{name}: {value}\r\n"));
                    }
                    let body: &[u8] = if asked.line.starts_with("HEAD") { &[] } else { &body };
                    let mut stream = stream;
                    let _ = stream
                        .write_all(head.as_bytes())
                        .and_then(|()| stream.write_all(b"\r\n"))
                        .and_then(|()| stream.write_all(body));
                });
            }
        });
        HandMade { address, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many requests began with this.
    pub fn count(&self, start: &str) -> usize {
        self.asked().iter().filter(|asked| asked.line.starts_with(start)).count()
    }
}

/// A line to a server that breaks once, after so many bytes of one connection's answers.
pub struct BreakingLine {
    pub address: String,
    sent: Arc<Mutex<Vec<u8>>>,
    broken: Arc<AtomicU64>,
}

impl BreakingLine {
    pub fn to(server: &str, after: usize) -> BreakingLine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sent, broken) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (log, cut, server) = (sent.clone(), broken.clone(), server.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let log = log.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from_client.read(&mut buffer) {
                        log.lock().unwrap().extend_from_slice(&buffer[..count]);
                        if to_server.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to_server.shutdown(Shutdown::Write);
                });
                let cut = cut.clone();
                thread::spawn(move || {
                    let (mut server, mut client) = (server, client);
                    let (mut buffer, mut passed) = ([0; 16 << 10], 0);
                    while let Ok(count @ 1..) = server.read(&mut buffer) {
                        passed += count;
                        if passed > after && cut.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                            break;
                        }
                        if client.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        BreakingLine { address, sent, broken }
    }

    pub fn has_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst) == 1
    }

    /// Everything that went to the server.
    pub fn sent(&self) -> String {
        String::from_utf8_lossy(&self.sent.lock().unwrap()).to_ascii_lowercase()
    }
}

/// A line that breaks once, after so many bytes of requests.
pub struct CutLine {
    pub address: String,
    cut: Arc<AtomicU64>,
}

impl CutLine {
    pub fn to(server: &str, after: u64) -> CutLine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = Arc::new(AtomicU64::new(0));
        let (flag, server) = (cut.clone(), server.to_owned());
        let passed = Arc::new(AtomicU64::new(0));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from_server, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
                let (flag, passed) = (flag.clone(), passed.clone());
                thread::spawn(move || {
                    let (mut client, mut server) = (client, server);
                    let mut buffer = [0; 16 << 10];
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        let passed = passed.fetch_add(count as u64, Ordering::SeqCst);
                        if passed > after && flag.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                            break;
                        }
                        if server.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        CutLine { address, cut }
    }

    pub fn has_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == 1
    }
}

/// What another server answers to the same request; in its headers `from` becomes `to`.
pub fn forward(server: &str, asked: &Asked, from: &str, to: &str) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    let mut head = asked.line.clone() + "\r\nconnection: close\r\n";
    for (name, value) in asked.headers.iter().filter(|(name, _)| *name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"\r\n").unwrap();
    stream.write_all(&asked.body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let text = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let ours = ["content-length", "connection", "transfer-encoding"];
    let headers = headers.filter(|(name, _)| !ours.contains(&name.to_ascii_lowercase().as_str()));
    let rewritten = |value: &str| if from.is_empty() { value.to_owned() } else { value.replace(from, to) };
    let headers = headers.map(|(name, value)| (name.to_owned(), rewritten(value))).collect();
    (status, headers, answer[end + 4..].to_vec())
}
