//! A module to copy: a parameter, a function that waits, a variable, a management command, and a test. In the tree it
//! would be `crates/modules/src/hello.rs`, with two lines in `lib.rs` and its words in `crates/modules/manual/hello.txt`.

use host::{Call, Finish, OutVar, Outcome, Registrar, Routes, Suspension, Text, Value};
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The state: `Default` before the parameters are set, shared by all workers after.
#[derive(Default)]
pub struct Hello {
    server: String,
    asked: AtomicI64,
}

pub fn register(m: &mut Registrar<Hello>) {
    m.param_text("server", |s, v| Ok(s.server = v.to_owned()));
    m.function("hello", Routes::ALL, hello);
    m.variable("hello_asked", |call| Value::Int(call.module.asked.load(Ordering::Relaxed)));
    m.command("hello:asked", "how often the server was asked", |call, _| {
        Ok(serde_json::json!({"asked": call.module.asked.load(Ordering::Relaxed)}))
    })
    .takes("");
    m.init(|s, _| if s.server.is_empty() { Err("server is not set".into()) } else { Ok(()) });
}

/// hello(name, variable): the server's answer to a name; 1, or -1 when there is none within two seconds.
fn hello(call: &mut Call<Hello>, name: Text, answer: OutVar) -> Outcome {
    call.module.asked.fetch_add(1, Ordering::Relaxed);
    // The future owns what it needs, and writes when the script has it again.
    let server = call.module.server.clone();
    let wait = Suspension::future("hello", async move {
        let said = ask(&server, &name).await;
        Box::new(move |ctx: &mut host::Ctx| {
            let written = said.is_ok_and(|said| answer.set(ctx, Value::from(said)));
            if written { 1 } else { -1 }
        }) as Finish
    });
    wait.limit(2000, -1)
}

async fn ask(server: &str, name: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(name).await?;
    stream.shutdown().await?;
    let mut said = String::new();
    stream.take(1024).read_to_string(&mut said).await?;
    Ok(said)
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    const HELLO: host::ModuleDef =
        host::ModuleDef { name: "hello", make: || host::registrar::module(super::register) };
    testing::over!(modules::ALL, [HELLO]);
}

#[cfg(test)]
mod tests {
    use crate::testing::{refused, run};
    use script::ast::Dialect;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn the_script_waits_for_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut name = String::new();
            stream.read_to_string(&mut name).unwrap();
            write!(stream, "hello {name}").unwrap();
        });
        let config = format!("loadmodule \"hello.so\"\nmodparam(\"hello\", \"server\", \"{address}\")");
        let ran = run(&config, r#"hello("bob", $avp(said)); $avp(asked) = $hello_asked;"#, Dialect::V4);
        server.join().unwrap();
        assert_eq!(ran.avps("said"), ["hello bob"]);
        assert_eq!(ran.avps("asked"), ["1"]);
        assert_eq!(ran.waits, 1);
        assert!(refused("loadmodule \"hello.so\"", "exit;", Dialect::V4).contains("server is not set"));
    }
}
