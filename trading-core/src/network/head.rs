//! The head of an HTTP answer, read and no byte further kept than was asked for; and the beginning of a page.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// A longer head is an attack, or no HTTP.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;
/// What is read of the page of a refusal.
const PAGE_BYTES_MAX: usize = 4 << 10;
/// How long its page may take.
const PAGE_MAX: Duration = Duration::from_secs(2);

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) phrase: String,
    headers: Vec<(String, String)>,
    /// What was read behind it.
    pub(super) rest: Vec<u8>,
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection without an answer")]
    Closed,
    #[error("its answer has a head of more than {HEAD_BYTES_MAX} bytes")]
    TooLong,
    #[error("its answer is no HTTP")]
    NotHttp,
}

impl Head {
    /// Reads the answer to what was asked; those on the way to it (`103 Early Hints`) are passed over.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, HeadError> {
        let mut bytes = Vec::with_capacity(1 << 10);
        loop {
            if let Some(head) = Self::parse(&bytes)? {
                let is_on_the_way = (100..200).contains(&head.status) && head.status != 101;
                if !is_on_the_way {
                    return Ok(head);
                }
                bytes = head.rest;
                continue;
            }
            if bytes.len() >= HEAD_BYTES_MAX {
                return Err(HeadError::TooLong);
            }
            let more = u64::try_from(HEAD_BYTES_MAX - bytes.len()).unwrap_or(0);
            if (&mut *stream).take(more).read_buf(&mut bytes).await? == 0 {
                return Err(HeadError::Closed);
            }
        }
    }

    /// `None`: there is more to come.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
            Err(_) => return Err(HeadError::NotHttp),
        };
        let header = |it: &httparse::Header<'_>| {
            (it.name.to_ascii_lowercase(), String::from_utf8_lossy(it.value).into_owned())
        };
        Ok(Some(Self {
            status: response.code.unwrap_or(0),
            phrase: response.reason.unwrap_or_default().to_owned(),
            headers: response.headers.iter().map(header).collect(),
            rest: bytes.get(length..).unwrap_or_default().to_vec(),
        }))
    }

    /// The first header of this name, in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a header is a list that holds this word.
    pub(super) fn lists(&self, name: &str, word: &str) -> bool {
        let of_name = self.headers.iter().filter(|(known, _)| known == name);
        let mut words = of_name.flat_map(|(_, value)| value.split(','));
        words.any(|one| one.trim().eq_ignore_ascii_case(word))
    }

    /// The beginning of the page behind the head, as much of it as comes in time.
    pub(super) async fn page(&self, stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let length = self.header("content-length").and_then(|text| text.trim().parse().ok());
        let most = length.unwrap_or(PAGE_BYTES_MAX).min(PAGE_BYTES_MAX);
        let mut page = self.rest.clone();
        let reading = async {
            while page.len() < most {
                let more = u64::try_from(most - page.len()).unwrap_or(0);
                match (&mut *stream).take(more).read_buf(&mut page).await {
                    Ok(0) | Err(_) => break,
                    Ok(_)
                        if self.lists("transfer-encoding", "chunked")
                            && page.ends_with(b"\r\n0\r\n\r\n") =>
                    {
                        break;
                    }
                    Ok(_) => {}
                }
            }
        };
        // What came until then is better than nothing.
        drop(timeout(PAGE_MAX, reading).await);
        page.truncate(most);
        if self.lists("transfer-encoding", "chunked") { unchunked(&page) } else { page }
    }
}

/// The payload of the chunks, up to the first that is cut or no chunk.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut page = Vec::new();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let size = rest.get(..end).and_then(|line| line.split(|byte| *byte == b';').next());
        let size = size.and_then(|text| std::str::from_utf8(text).ok());
        let Some(size) = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok()) else {
            break;
        };
        rest = rest.get(end + 2..).unwrap_or_default();
        page.extend_from_slice(rest.get(..size).unwrap_or(rest));
        rest = rest.get(size.saturating_add(2)..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut answer: &[u8]) -> Result<Head, HeadError> {
        Head::read(&mut answer).await
    }

    #[tokio::test]
    async fn an_answer_is_read_to_the_end_of_its_head() {
        let head = read(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 Switching\r\nConnection: keep-alive, Upgrade\r\n\r\n\x82\x00");
        let head = head.await.unwrap();
        assert_eq!(
            (head.status, head.phrase.as_str(), head.rest.as_slice()),
            (101, "Switching", &b"\x82\x00"[..])
        );
        assert!(head.lists("connection", "upgrade") && !head.lists("connection", "close"));
    }

    #[tokio::test]
    async fn what_has_no_end_or_is_no_http_is_given_up() {
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 100_000]].concat();
        assert!(matches!(read(&endless).await, Err(HeadError::TooLong)));
        let many = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(101));
        assert!(matches!(read(many.as_bytes()).await, Err(HeadError::TooLong)));
        assert!(matches!(read(b"SSH-2.0-OpenSSH\r\n").await, Err(HeadError::NotHttp)));
        assert!(matches!(read(b"").await, Err(HeadError::Closed)));
    }

    #[tokio::test]
    async fn of_a_page_its_beginning_is_read() {
        let page = async |mut answer: &[u8]| {
            let head = Head::read(&mut answer).await.unwrap();
            head.page(&mut answer).await
        };
        assert_eq!(page(b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nbodyNEXT").await, b"body");
        assert_eq!(page(b"HTTP/1.1 403 No\r\n\r\nto the end").await, b"to the end");
        let chunked = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(page(chunked).await, b"abcde");
        let cut = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc";
        assert_eq!(page(cut).await, b"abc");
        let long = [b"HTTP/1.1 403 No\r\n\r\n".to_vec(), vec![b'x'; 100_000]].concat();
        assert_eq!(page(&long).await.len(), PAGE_BYTES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_does_not_come_is_not_waited_for() {
        let (mut ours, mut theirs) = tokio::io::duplex(1_000);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"HTTP/1.1 403 No\r\n\r\nsome")
            .await
            .unwrap();
        let head = Head::read(&mut ours).await.unwrap();
        assert_eq!(head.page(&mut ours).await, b"some");
    }
}
