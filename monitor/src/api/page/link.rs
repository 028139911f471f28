//! Addresses on this server. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path, and a query of these pairs if there are any.
pub(super) fn query<'a>(path: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut address = path.to_owned();
    for (n, (key, value)) in pairs.enumerate() {
        address.push(if n == 0 { '?' } else { '&' });
        address.extend(utf8_percent_encode(key, ENCODED));
        address.push('=');
        address.extend(utf8_percent_encode(value, ENCODED));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_stays_in_its_place() {
        assert_eq!(query("/", std::iter::empty()), "/");
        let pairs = [("job", "a&b=\"<\n"), ("pod", "shop/web")];
        assert_eq!(query("/", pairs.into_iter()), "/?job=a%26b%3D%22%3C%0A&pod=shop%2Fweb");
    }
}
