//! The state machines, step by step on a virtual clock. A line is `step => what came out`.

mod driver;

use driver::Driver;
use transaction::Config;

fn check(config: Config, steps: &str) {
    let mut driver = Driver::new(config);
    for (number, line) in steps.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate() {
        let (step, expected) = line.split_once("=>").unwrap_or((line, ""));
        let got = driver.step(step.trim()).join(", ");
        assert_eq!(got, expected.trim(), "step {}: {step}\nof{steps}", number + 1);
    }
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

#[test]
fn invite_with_a_negative_reply() {
    check(
        Config::default(),
        "new INVITE
         up 100               => up 100
         again                => up 100
         send                 => b0 INVITE
         recv 0 100           =>
         at 5000              =>
         recv 0 180           => provisional
         up 180               => up 180
         recv 0 486           => b0 ACK, failed 0
         up 486               => up 486
         recv 0 486           => b0 ACK
         at 5500              => up 486
         at 6500              => up 486
         again                => up 486
         ack                  => absorbed
         at 8500              =>
         again                => up 486
         ack                  => absorbed
         at 11500             => ended
         again                => unknown",
    );
}

#[test]
fn retransmission_of_requests() {
    // A: from T1 doubling, up to T2 as the reference does; B: fr.
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         at 499 =>
         at 500 => b0 INVITE
         at 1500 => b0 INVITE
         at 3500 => b0 INVITE
         at 7500 => b0 INVITE
         at 11500 => b0 INVITE
         at 29999 => b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE
         at 30000 => timeout 0, failed 0
         up 408 => up 408
         ack => absorbed
         at 60000 => ended",
    );
    // E: at T2 after a provisional reply, until F.
    check(
        Config::default(),
        "new OPTIONS
         send => b0 OPTIONS
         at 500 => b0 OPTIONS
         recv 0 100 =>
         at 1500 => b0 OPTIONS
         at 5500 => b0 OPTIONS
         at 9500 => b0 OPTIONS
         recv 0 200 => success
         up 200 => up 200
         recv 0 200 =>
         again => up 200
         at 14500 => ended",
    );
}

#[test]
fn reliable_transports_repeat_nothing() {
    check(
        Config::default(),
        "tcp
         new INVITE
         send => b0 INVITE
         at 29000 =>
         recv 0 486 => b0 ACK, failed 0
         up 486 => up 486
         at 58999 =>
         ack => absorbed
         at 63999 => ended",
    );
}

#[test]
fn accepted() {
    // RFC 6026: further 2xx pass, of this branch and of others; a late negative one is acknowledged only.
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         send => b1 INVITE
         recv 1 180 => provisional
         recv 0 200 => success
         up 200 => up 200, b1 CANCEL
         recv 0 200 => success
         up 200 => up 200
         ack2 => success
         recvc 1 200 =>
         recv 1 200 => success
         up 200 => up 200
         again => up 200
         at 5000 => ended",
    );
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         send => b1 INVITE
         recv 1 180 => provisional
         recv 0 200 => success
         up 200 => up 200, b1 CANCEL
         at 500 => b1 CANCEL
         at 1500 => b1 CANCEL
         recvc 1 200 =>
         recv 1 487 => b1 ACK
         up 487 => late
         at 5000 =>
         at 6500 => ended",
    );
}

#[test]
fn a_2xx_made_here_is_repeated_until_the_ack() {
    check(
        Config::default(),
        "new INVITE
         here 200 => up 200
         at 500 => up 200
         at 1500 => up 200
         ack2 => success
         at 6499 =>
         at 6500 => ended",
    );
}

#[test]
fn missing_ack() {
    // G at T1, 2·T1 ... T2; H is fr.
    check(
        with(|c| c.fr = 4000),
        "new INVITE
         here 404 => up 404
         at 3999 => up 404, up 404, up 404
         at 4000 =>
         at 9000 => ended",
    );
}

#[test]
fn cancel_waits_for_a_provisional_reply() {
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         cancel => absorb
         at 500 => b0 INVITE
         recv 0 180 => b0 CANCEL, provisional
         at 1000 => b0 CANCEL
         recv 0 487 => b0 ACK, failed 0
         up 487 => up 487
         send => refused
         ack => absorbed
         at 9000 => ended",
    );
    // Nobody ever answers.
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         at 400 =>
         cancel => absorb
         at 30000 => b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE, b0 INVITE, timeout 0, failed 0
         up 487 => up 487",
    );
    // It rings and never ends: 64·T1 after the CANCEL.
    check(
        with(|c| c.t1 = 100),
        "tcp
         new INVITE
         send => b0 INVITE
         recv 0 180 => provisional
         cancel => b0 CANCEL, absorb
         cancel => absorb
         at 6399 =>
         at 6400 => timeout 0 rang, failed 0
         up 487 => up 487",
    );
    // No branch, or only one that is not sent yet.
    check(Config::default(), "new INVITE\n cancel => failed -\n here 487 => up 487\n cancel => absorb");
    check(
        Config::default(),
        "new INVITE\n open\n cancel => failed 0\n here 487 => up 487\n go 0 => not sent",
    );
    check(Config::default(), "new OPTIONS\n send => b0 OPTIONS\n cancel => absorb\n recv 0 200 => success");
}

#[test]
fn a_2xx_crosses_the_cancel() {
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         recv 0 180 => provisional
         cancel => b0 CANCEL, absorb
         recv 0 200 => success
         up 200 => up 200",
    );
}

#[test]
fn timeout_while_ringing() {
    check(
        with(|c| c.fr_inv = 2000),
        "new INVITE
         send => b0 INVITE
         at 100 =>
         recv 0 180 => provisional
         at 1100 =>
         recv 0 183 => provisional
         at 3099 =>
         at 3100 => b0 CANCEL, timeout 0 rang, failed 0
         up 408 => up 408
         recv 0 487 => b0 ACK
         ack => absorbed
         at 20000 => ended",
    );
    check(
        with(|c| (c.fr_inv, c.restart_on_each_reply) = (2000, false)),
        "new INVITE
         send => b0 INVITE
         recv 0 180 => provisional
         at 1100 =>
         recv 0 183 => provisional
         at 2000 => b0 CANCEL, timeout 0 rang, failed 0",
    );
}

#[test]
fn ringing_after_the_timeout_is_cancelled() {
    check(
        with(|c| c.fr = 2000),
        "tcp
         new INVITE
         send => b0 INVITE
         at 2000 => timeout 0, failed 0
         send => b1 INVITE
         recv 0 180 => b0 CANCEL
         recv 0 486 => b0 ACK
         recv 1 200 => success
         up 200 => up 200",
    );
    check(
        with(|c| c.fr = 2000),
        "tcp
         new INVITE
         send => b0 INVITE
         at 2000 => timeout 0, failed 0
         send => b1 INVITE
         recv 0 200 => success
         up 200 => up 200",
    );
}

#[test]
fn a_6xx_ends_the_others() {
    // Golden fork-603-after-180-cancels: the other is cancelled once it rings; reply routes see its 180.
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         send => b1 INVITE
         recv 0 603 => b0 ACK, failed 0
         recv 1 180 => b1 CANCEL, provisional
         send => refused
         up 603 => up 603
         recv 1 487 => b1 ACK",
    );
    check(
        with(|c| c.fork_after_6xx = true),
        "new INVITE
         send => b0 INVITE
         send => b1 INVITE
         recv 0 603 => b0 ACK
         recv 1 180 => provisional
         recv 1 486 => b1 ACK, failed 0
         send => b2 INVITE
         recv 2 200 => success",
    );
}

#[test]
fn serial_forking() {
    // Only the last set competes: golden serial-second-armed (486, 404, 500 gives 500).
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         recv 0 486 => b0 ACK, failed 0
         send => b1 INVITE
         recv 0 486 => b0 ACK
         recv 1 404 => b1 ACK, failed 1
         send => b2 INVITE
         recv 2 500 => b2 ACK, failed 2
         up 500 => up 500",
    );
}

#[test]
fn failover_inside_a_set() {
    check(
        with(|c| c.fr = 1000),
        "tcp
         failover
         new INVITE
         send => b0 INVITE
         at 1000 => timeout 0, b1 INVITE
         recv 1 404 => b1 ACK, failed 1",
    );
}

#[test]
fn minor_and_awaited_branches() {
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         send => b1 INVITE
         minor 1
         recv 1 183 => provisional
         recv 0 486 => b0 ACK, b1 CANCEL, failed 0
         up 486 => up 486",
    );
    check(
        Config::default(),
        "new INVITE
         wait 2
         send => b1 INVITE
         recv 1 486 => b1 ACK
         injected => absorb
         send => b2 INVITE
         injected => absorb
         recv 2 404 => b2 ACK, failed 2",
    );
    check(
        with(|c| c.fr_inv = 7000),
        "new INVITE\n up 180 => up 180\n wait 1\n at 6999 =>\n at 7000 => timeout 0, failed 0\n here 408 => up 408",
    );
    check(Config::default(), "new INVITE\n wait 1\n cancel => failed 0\n here 487 => up 487");
}

#[test]
fn no_cancel() {
    check(
        Config::default(),
        "new INVITE
         keep
         send => b0 INVITE
         send => b1 INVITE
         recv 1 180 => provisional
         recv 0 200 => success
         up 200 => up 200
         recv 1 200 => success
         up 200 => up 200",
    );
}

#[test]
fn unanswered() {
    check(
        Config::default(),
        "new INVITE
         at 30000 => unanswered
         hold
         at 60000 => unanswered
         release
         again =>
         at 65000 => ended",
    );
    // A branch that is being prepared, or decided, for ever.
    check(Config::default(), "new INVITE\n open\n at 30000 => unanswered\n release\n at 35000 => ended");
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         late 0 404 => b0 ACK
         at 30000 => unanswered
         decide 0 404 => failed 0
         up 404 => up 404",
    );
}

/// The guard that asks for forgotten transactions and the timer of a ringing branch are due at the same moment:
/// the guard was not armed for the branches that are opened then.
#[test]
fn unanswered_while_a_branch_times_out() {
    for (fr, fr_inv) in [(2_000, 4_000), (2_000, 2_000), (3_000, 9_000)] {
        let config = with(|c| (c.fr, c.fr_inv, c.unanswered) = (fr, fr_inv, fr));
        check(
            config,
            &format!(
                "new INVITE
                 failover
                 send => b0 INVITE
                 recv 0 180 => provisional
                 at {fr_inv} => b0 CANCEL, timeout 0 rang, b1 INVITE
                 recv 1 180 => provisional
                 recvc 0 200 =>
                 recv 0 487 => b0 ACK
                 at {} =>
                 recv 1 200 => success
                 up 200 => up 200",
                fr_inv + fr_inv / 2
            ),
        );
    }
}

#[test]
fn reply_routes_that_take_their_time() {
    // The 180's route is still running when the 200 passes: the 180 comes too late.
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         late 0 180 =>
         recv 0 200 => success
         up 200 => up 200
         decide 0 180 => absorb",
    );
    // A final reply counts when its route has ended, and is acknowledged at once.
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         send => b1 INVITE
         late 0 404 => b0 ACK
         recv 0 404 => b0 ACK
         recv 1 486 => b1 ACK
         decide 0 480 => failed 0
         up 480 => up 480",
    );
}

#[test]
fn one_final_reply() {
    check(
        Config::default(),
        "new OPTIONS
         here 200 => up 200
         here 404 => late
         up 200 => late
         again => up 200
         at 5000 => ended
         here 200 => late",
    );
    // A script answers while a branch is open: the branch is cancelled. It may have answered meanwhile: a 2xx
    // goes upstream in any case (RFC 3261 §16.7 step 5).
    check(
        Config::default(),
        "new INVITE
         send => b0 INVITE
         recv 0 180 => provisional
         here 480 => up 480, b0 CANCEL
         recv 0 200 => success
         ack => absorbed",
    );
}

#[test]
fn local_requests() {
    check(
        Config::default(),
        "local OPTIONS
         send => b0 OPTIONS
         recv 0 200 => success
         up 200 =>
         at 5000 => ended",
    );
    check(
        Config::default(),
        "local INVITE
         send => b0 INVITE
         recv 0 486 => b0 ACK, failed 0
         up 486 =>
         recv 0 486 => b0 ACK
         at 5000 => ended",
    );
}

#[test]
fn limits() {
    check(
        with(|c| c.max_branches = 2),
        "new INVITE\n send => b0 INVITE\n send => b1 INVITE\n send => refused",
    );
    check(with(|c| c.max_transactions = 0), "new INVITE => full");
}
