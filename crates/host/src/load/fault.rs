//! Why a module cannot begin, and whose fault that is.

use std::fmt;

/// What a module's `init` says. A text alone is a fault of the configuration, wherever it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    text: String,
    here: bool,
    /// The parameter whose value is wrong.
    param: Option<&'static str>,
}

impl LoadError {
    /// Only this machine lacks something (a file, a folder, a device): the configuration may be meant for another one.
    pub fn of_this_machine(text: impl Into<String>) -> LoadError {
        LoadError { text: text.into(), here: true, param: None }
    }

    /// What the system said about a file.
    pub fn of_file(path: impl fmt::Display, error: &std::io::Error) -> LoadError {
        LoadError::of_this_machine(format!("{path}: {error}"))
    }

    /// The same with a word in front: which setting it is about.
    pub fn about(self, what: impl fmt::Display) -> LoadError {
        LoadError { text: format!("{what}: {}", self.text), ..self }
    }

    /// The same at the `modparam` that sets this parameter, and with its name.
    pub fn in_param(self, param: &'static str) -> LoadError {
        LoadError { param: Some(param), ..self.about(param) }
    }

    /// The parameter whose value is wrong, where that is known.
    pub fn param(&self) -> Option<&'static str> {
        self.param
    }

    /// Whether another machine may be without the fault.
    pub fn is_of_this_machine(&self) -> bool {
        self.here
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for LoadError {
    fn from(text: String) -> LoadError {
        LoadError { text, here: false, param: None }
    }
}

impl From<&str> for LoadError {
    fn from(text: &str) -> LoadError {
        text.to_string().into()
    }
}

impl From<LoadError> for String {
    fn from(error: LoadError) -> String {
        error.text
    }
}

/// For results of what a parameter's value is given to.
pub trait InParam<T> {
    /// The error is one in the value of this parameter.
    fn in_param(self, param: &'static str) -> Result<T, LoadError>;
}

impl<T, E: Into<LoadError>> InParam<T> for Result<T, E> {
    fn in_param(self, param: &'static str) -> Result<T, LoadError> {
        self.map_err(|error| error.into().in_param(param))
    }
}

impl From<script::Diagnostic> for LoadError {
    fn from(error: script::Diagnostic) -> LoadError {
        LoadError { here: error.here, ..error.message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_stays_with_the_text() {
        let missing = std::io::Error::from_raw_os_error(2);
        let error = LoadError::of_file("/a/b", &missing).about("config_file");
        assert_eq!(
            (error.to_string().as_str(), error.is_of_this_machine()),
            ("config_file: /a/b: No such file or directory (os error 2)", true)
        );
        // A text that looks like one of the system's is none.
        assert!(!LoadError::from("a title with (os error 2) in it").is_of_this_machine());
    }
}
