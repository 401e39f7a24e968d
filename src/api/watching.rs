//! Events, line by line.

use super::answer::Answer;
use crate::{
    driver::Driver,
    events::{Full, LISTENERS, Listener, Wish},
};
use futures_util::{StreamExt, stream, stream::BoxStream};
use hyper::StatusCode;

/// The last events, and with `follow` those that come.
pub fn events(driver: &Driver, follow: bool) -> Result<Answer, Answer> {
    match follow {
        true => Ok(Answer::lines(lines(driver.events().listen(Wish::Everything).map_err(full)?))),
        false => {
            let remembered = driver.events().remembered().into_iter().map(|event| event.line.clone());
            Ok(Answer::lines(stream::iter(Vec::from_iter(remembered)).boxed()))
        }
    }
}

/// What comes of a request, until it has ended.
pub fn request(driver: &Driver, volume: &str, request: u64) -> Result<Answer, Answer> {
    let wish = Wish::Request { volume: volume.to_owned(), request };
    Ok(Answer::lines(lines(driver.events().listen(wish).map_err(full)?)))
}

fn lines(listener: Listener) -> BoxStream<'static, String> {
    let next = |mut listener: Listener| async move { listener.next().await.map(|line| (line, listener)) };
    stream::unfold(listener, next).boxed()
}

fn full(_: Full) -> Answer {
    let message = format!("{LISTENERS} listen already: end one of them, such as a `docker dso events -f`");
    Answer::refuse(StatusCode::SERVICE_UNAVAILABLE, message)
}
