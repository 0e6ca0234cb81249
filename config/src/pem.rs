//! Whether a file holds certificates. Promises: a file that an image build would choke on is refused before. Does not
//! judge validity, chains or dates.

use std::io::Read;
use std::path::Path;

const LIMIT: u64 = 1 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Says what is wrong with the file, or how many certificates it holds.
pub(crate) fn check(path: &Path) -> Result<usize, String> {
    let meta = std::fs::metadata(path).map_err(|e| reason(&e))?;
    // Opening a pipe would wait for its other end.
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| reason(&e))?;
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(|e| reason(&e))?;
    if text.len() as u64 > LIMIT {
        return Err("it is larger than 1MiB".into());
    }
    count(&String::from_utf8_lossy(&text))
}

/// An IO error in the words of this place, without the number of the system's.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".into(),
        std::io::ErrorKind::PermissionDenied => "it may not be read".into(),
        std::io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}

fn count(text: &str) -> Result<usize, String> {
    if text.contains("PRIVATE KEY-----") {
        return Err("it holds a private key, which must not go into images".into());
    }
    let mut found = 0;
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        let Some(end) = rest.find(END) else { return Err("a certificate in it has no end".into()) };
        let body: String = rest[..end].chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let data = body.trim_end_matches('=');
        let base64 = body.len().is_multiple_of(4)
            && body.len() - data.len() <= 2
            && data.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
        // DER begins with a SEQUENCE of at least 128 bytes: 0x30 0x8…, which is `MI` in base64.
        if !base64 || !data.starts_with("MI") {
            return Err(format!("certificate {} in it is not readable", found + 1));
        }
        found += 1;
        rest = &rest[end + END.len()..];
    }
    if found == 0 { Err("it holds no PEM certificate".into()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_told_from_other_things() {
        let one = format!("comment\n{BEGIN}\nMIIBszCC\nAVmgAwIB\n{END}\n");
        assert_eq!(count(&one), Ok(1));
        assert_eq!(count(&format!("{one}\r\n{one}")), Ok(2));
        for bad in [
            "".to_owned(),
            "MIIBszCC".into(),
            format!("{BEGIN}\nMIIB"),
            format!("{BEGIN}\nMIIBszC\n{END}"),
            format!("{BEGIN}\nhello!!!\n{END}"),
            format!("{BEGIN}\nAAAA\n{END}"),
            format!("{one}-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"),
        ] {
            assert!(count(&bad).is_err(), "{bad}");
        }
        assert_eq!(check(Path::new("/")), Err("it is not a file".into()));
    }
}
