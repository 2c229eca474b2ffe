//! One registration of this server at another, and its states.

use bytes::Bytes;
use host::db::Row;
use sip::Uri;

/// ```text
///                 REGISTER         401/407          200
/// NotRegistered ───────▶ Registering ──▶ Authenticating ──▶ Registered ──(due)──▶ Registering
///      ▲                     │ 408 · other · bad credentials        │ disabled
///      │                     ▼                                      ▼
///      └──200── AuthenticatingUnregister ◀──401/407── Unregistering
/// ```
/// The failures (RegisterTimeout, InternalError, WrongCredentials, RegistrarError) are tried again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegistrationState {
    NotRegistered,
    Registering,
    Authenticating,
    Registered,
    RegisterTimeout,
    InternalError,
    WrongCredentials,
    RegistrarError,
    Unregistering,
    AuthenticatingUnregister,
}

impl RegistrationState {
    /// As management commands print it, and the event that a change raises.
    pub fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            RegistrationState::NotRegistered => ("NOT_REGISTERED_STATE", None),
            RegistrationState::Registering => ("REGISTERING_STATE", Some("E_REGISTRANT_REGISTERING")),
            RegistrationState::Authenticating => {
                ("AUTHENTICATING_STATE", Some("E_REGISTRANT_AUTHENTICATING"))
            }
            RegistrationState::Registered => ("REGISTERED_STATE", Some("E_REGISTRANT_REGISTERED")),
            RegistrationState::RegisterTimeout => {
                ("REGISTER_TIMEOUT_STATE", Some("E_REGISTRANT_REGISTER_TIMEOUT"))
            }
            RegistrationState::InternalError => ("INTERNAL_ERROR_STATE", Some("E_REGISTRANT_INTERNAL_ERROR")),
            RegistrationState::WrongCredentials => {
                ("WRONG_CREDENTIALS_STATE", Some("E_REGISTRANT_WRONG_CREDENTIALS"))
            }
            RegistrationState::RegistrarError => {
                ("REGISTRAR_ERROR_STATE", Some("E_REGISTRANT_REGISTRAR_ERROR"))
            }
            RegistrationState::Unregistering => ("UNREGISTERING_STATE", Some("E_REGISTRANT_UNREGISTERING")),
            RegistrationState::AuthenticatingUnregister => {
                ("AUTHENTICATING_UNREGISTER_STATE", Some("E_REGISTRANT_AUTHENTICATING_UNREGISTER"))
            }
        }
    }

    /// A reply is awaited.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            RegistrationState::Registering
                | RegistrationState::Authenticating
                | RegistrationState::Unregistering
                | RegistrationState::AuthenticatingUnregister
        )
    }

    pub fn has_failed(self) -> bool {
        matches!(
            self,
            RegistrationState::RegisterTimeout
                | RegistrationState::InternalError
                | RegistrationState::WrongCredentials
                | RegistrationState::RegistrarError
        )
    }

    pub fn is_leaving(self) -> bool {
        matches!(self, RegistrationState::Unregistering | RegistrationState::AuthenticatingUnregister)
    }
}

pub const ALL: [RegistrationState; 10] = [
    RegistrationState::NotRegistered,
    RegistrationState::Registering,
    RegistrationState::Authenticating,
    RegistrationState::Registered,
    RegistrationState::RegisterTimeout,
    RegistrationState::InternalError,
    RegistrationState::WrongCredentials,
    RegistrationState::RegistrarError,
    RegistrationState::Unregistering,
    RegistrationState::AuthenticatingUnregister,
];

/// Seconds when the table names none.
pub const DEFAULT_EXPIRES: u32 = 3600;

/// What is to be registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub registrar: Bytes,
    pub proxy: Option<Bytes>,
    pub aor: Bytes,
    /// From, when it is not the AOR.
    pub third_party: Option<Bytes>,
    pub user: Bytes,
    pub password: Bytes,
    pub contact: Bytes,
    /// ";name=value..."
    pub params: Bytes,
    /// Seconds asked for.
    pub expires: u32,
    /// Index into `Shared::sockets`, and as written.
    pub socket: Option<(u16, String)>,
    pub sharing_tag: Option<String>,
    pub enabled: bool,
}

impl Wish {
    /// From a row of (registrar, proxy, aor, third party, user, password, contact, params, expiry, socket, sharing
    /// tag, state); `socket` finds one of ours by its text. The error is what a user should read.
    pub fn read(row: &Row<'_>, socket: impl Fn(&str) -> Option<u16>) -> Result<Wish, String> {
        let optional = |at: usize| row.text(at).filter(|t| !t.trim_ascii().is_empty());
        let uri = |at: usize, what: &str| -> Result<Bytes, String> {
            let text = optional(at).ok_or_else(|| format!("it has no {what}"))?;
            Uri::parse(&text).map_err(|e| format!("its {what} is no URI: {e}"))?;
            Ok(text)
        };
        let optional_uri = |at: usize, what: &str| match optional(at) {
            Some(_) => uri(at, what).map(Some),
            None => Ok(None),
        };
        let params = optional(7).unwrap_or_default();
        if !params.is_empty() && !params.starts_with(b";") {
            return Err("its binding_params do not begin with `;`".into());
        }
        if [4, 5, 7].iter().any(|at| {
            row.text(*at).is_some_and(|t| {
                t.iter().any(|b| matches!(b, b'\r' | b'\n' | b'"' if *at != 7 || *b != b'"'))
            })
        }) {
            return Err("its credentials or parameters hold characters that a header cannot".into());
        }
        let socket = match row.string(9) {
            text if text.trim().is_empty() => None,
            text => Some((
                socket(text.trim())
                    .ok_or_else(|| format!("forced_socket {text} is not a socket of this server"))?,
                text,
            )),
        };
        let expires = row.int(8).filter(|e| *e > 0).and_then(|e| u32::try_from(e).ok());
        Ok(Wish {
            registrar: uri(0, "registrar")?,
            proxy: optional_uri(1, "proxy")?,
            aor: uri(2, "aor")?,
            third_party: optional_uri(3, "third_party_registrant")?,
            user: optional(4).unwrap_or_default(),
            password: optional(5).unwrap_or_default(),
            contact: uri(6, "binding_URI")?,
            params,
            expires: expires.unwrap_or(DEFAULT_EXPIRES),
            socket,
            sharing_tag: optional(10).map(|t| String::from_utf8_lossy(&t).into_owned()),
            enabled: row.int(11).unwrap_or(0) == 0,
        })
    }

    pub fn is(&self, aor: &[u8], contact: &[u8], registrar: &[u8]) -> bool {
        self.aor == aor && self.contact == contact && self.registrar == registrar
    }

    /// Only one binding may stand at the registrar.
    pub fn is_exclusive(&self) -> bool {
        let has = |name: &[u8]| memchr::memmem::find(&self.params, name).is_some();
        has(b"reg-id=") && has(b"+sip.instance=")
    }
}

/// A registration as it stands.
#[derive(Clone, Debug)]
pub struct Record {
    pub wish: Wish,
    pub state: RegistrationState,
    pub call_id: Bytes,
    pub from_tag: Bytes,
    pub cseq: u32,
    /// Seconds asked for now (the registrar may have wanted more), and given last.
    pub asked: u32,
    pub expires: u32,
    /// Unix seconds; 0: never.
    pub last_sent: u64,
    /// Unix seconds: before this nothing needs to be done.
    pub due: u64,
    /// Where the registrar was last, and the socket used.
    pub path: Option<transaction::Path>,
}

impl Record {
    /// The identifier of its status, as the reference builds it.
    pub fn identifier(&self) -> String {
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let wish = &self.wish;
        format!("aor={};contact={};registrar={}", text(&wish.aor), text(&wish.contact), text(&wish.registrar))
    }

    pub fn new(wish: Wish) -> Record {
        let asked = wish.expires;
        Record {
            wish,
            state: RegistrationState::NotRegistered,
            call_id: Bytes::new(),
            from_tag: Bytes::new(),
            cseq: 0,
            asked,
            expires: asked,
            last_sent: 0,
            due: 0,
            path: None,
        }
    }
}
