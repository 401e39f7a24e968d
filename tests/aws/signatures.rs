//! The checker of signatures that stands before moto is right itself.

use crate::support::{
    aws::sigv4::{Signed, seconds},
    server::Seen,
};
use hyper::{HeaderMap, header::HeaderName};
use std::time::{Duration, UNIX_EPOCH};

/// The request that AWS's description of Signature Version 4 signs, with its published signature.
fn published() -> Seen {
    let headers = [
        ("host", "iam.amazonaws.com"),
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("x-amz-date", "20150830T123600Z"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        ),
    ];
    let headers = headers.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    Seen {
        method: "GET".into(),
        path: "/".into(),
        query: "Action=ListUsers&Version=2010-05-08".into(),
        headers: HeaderMap::from_iter(headers),
        body: Default::default(),
    }
}

fn check(seen: &Seen, secret: &str, late: u64) -> Result<(), &'static str> {
    let now = UNIX_EPOCH + Duration::from_secs(seconds("20150830T123600Z").unwrap() + late);
    Signed::of(seen).unwrap().check(seen, secret, now)
}

#[test]
fn the_published_example_is_taken_and_whatever_differs_from_it_is_not() {
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    assert_eq!(seconds("20150830T123600Z"), Some(1_440_938_160));
    assert_eq!(check(&published(), SECRET, 60), Ok(()));
    assert_eq!(check(&published(), "another", 0), Err("a wrong signature"));
    assert_eq!(check(&published(), SECRET, 3600), Err("a signature of another time"));
    for change in [
        |seen: &mut Seen| seen.method = "POST".into(),
        |seen: &mut Seen| seen.path = "/x".into(),
        |seen: &mut Seen| seen.query += "&x=y",
        |seen: &mut Seen| seen.body = "x".into(),
        |seen: &mut Seen| drop(seen.headers.insert("host", "sts.amazonaws.com".parse().unwrap())),
    ] {
        let mut seen = published();
        change(&mut seen);
        assert_eq!(check(&seen, SECRET, 0), Err("a wrong signature"), "{seen:?}");
    }
    let mut seen = published();
    seen.headers.insert("x-amz-security-token", "x".parse().unwrap());
    assert_eq!(check(&seen, SECRET, 0), Err("a header that must be signed is not"));
}
