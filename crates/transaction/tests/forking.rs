//! Best-reply selection, against what the reference sent upstream (golden cases `fork-*`, `serial-*`).

mod driver;

use driver::Driver;
use transaction::{Config, priority};

/// Two branches that fail in this order; whose reply goes upstream.
fn check(first: u16, second: u16, winner: u16) {
    let mut driver = Driver::new(Config::default());
    for step in ["new INVITE", "send", "send"] {
        driver.step(step);
    }
    assert_eq!(driver.step(&format!("recv 0 {first}")), ["b0 ACK"], "{first} {second}");
    let last = driver.step(&format!("recv 1 {second}"));
    assert_eq!(last, ["b1 ACK".to_owned(), format!("failed {winner}")], "{first} {second}");
}

#[test]
fn pairs_of_the_reference() {
    for (first, second, winner) in [
        (486, 404, 1),
        (486, 603, 1),
        (404, 407, 1),
        (500, 404, 1),
        (503, 404, 1),
        (503, 503, 0),
        (487, 404, 1),
        (480, 486, 0),
        (408, 404, 1),
        (404, 408, 0),
        (420, 404, 0),
        (484, 404, 0),
        (404, 404, 0),
        (481, 486, 0),
        (488, 404, 1),
        (301, 302, 0),
        (502, 503, 0),
        (401, 407, 0),
        (407, 407, 0),
        (401, 404, 0),
        // fork-one-timeout-404-late: a timeout counts as 408
        (500, 408, 0),
    ] {
        check(first, second, winner);
    }
}

/// A callee who has not rung is not waited for once another has declined for all.
#[test]
fn a_6xx_waits_for_nobody_who_has_not_rung() {
    let mut driver = Driver::new(Config::default());
    for step in ["new INVITE", "send", "send"] {
        driver.step(step);
    }
    assert_eq!(driver.step("recv 0 603"), ["b0 ACK", "failed 0"]);
}

#[test]
fn order_of_all() {
    let best_first =
        [600, 603, 606, 300, 302, 380, 401, 400, 402, 404, 410, 480, 486, 487, 491, 500, 503, 599, 408];
    assert!(best_first.is_sorted_by(|a, b| priority(*a) < priority(*b)));
    assert!([407, 415, 420, 484].iter().all(|s| priority(*s) == priority(401)));
}
