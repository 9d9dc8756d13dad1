//! The environment variables with which Kubernetes tells a container the addresses of Services.
//!
//! A Service named `kairos-identity` gets variables that begin like those of the settings. They are not
//! settings. Kubernetes, "Accessing the Service: Environment Variables", lists them.

/// The protocols of a Service.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// True if Kubernetes sets a variable of this name and text for a Service named `kairos-identity` or
/// `kairos-identity-NAME`. `name` lacks the prefix `KAIROS_IDENTITY_`.
pub(super) fn is_of_service(name: &str, text: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    // The words of NAME come first: KAIROS_IDENTITY_PAGES_SERVICE_HOST of `kairos-identity-pages`.
    (0..words.len()).any(|skipped| words.get(skipped..).is_some_and(|rest| is_variable(rest, text)))
}

/// True if the words that follow the name of a Service are those of one of its variables.
fn is_variable(words: &[&str], text: &str) -> bool {
    match words {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        // Without the value, this could be a misspelt setting such as KAIROS_IDENTITY_SERVER_PORT.
        ["PORT"] => is_address(text),
        ["PORT", port, protocol] | ["PORT", port, protocol, "ADDR" | "PORT" | "PROTO"] => {
            port.parse::<u16>().is_ok() && PROTOCOLS.contains(protocol)
        }
        _ => false,
    }
}

/// True for the address of a port of a Service, such as `tcp://10.96.0.7:50051`.
fn is_address(text: &str) -> bool {
    let protocol = text.split_once("://").map(|(protocol, _)| protocol.to_ascii_uppercase());
    protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{super::section_list::settings, *};

    #[test]
    fn the_variables_of_a_service_are_recognized() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_GRPC",
            "SERVICE_PORT_HTTP_PAGES",
            "PORT",
            "PORT_50051_TCP",
            "PORT_50051_TCP_ADDR",
            "PORT_50051_TCP_PORT",
            "PORT_50051_TCP_PROTO",
            "PORT_53_UDP",
            "PORT_53_UDP_ADDR",
            "PORT_9_SCTP_PROTO",
            "PAGES_SERVICE_HOST",
            "PAGES_SERVICE_PORT_HTTP",
            "PAGES_PORT",
            "PAGES_PORT_8080_TCP_ADDR",
        ] {
            assert!(is_of_service(name, "tcp://10.96.0.7:50051"), "{name}");
        }
    }

    #[test]
    fn misspelt_settings_are_not_variables_of_a_service() {
        for name in [
            "SERVER_PORT",
            "HTTP_PORT",
            "PORT",
            "PORTS",
            "PORT_GRPC",
            "PORT_50051",
            "PORT_50051_TLS",
            "PORT_99999_TCP",
            "PORT_50051_TCP_HOST",
            "SERVICE",
            "SERVICE_LISTEN",
            "PASSWORD_COTS",
        ] {
            assert!(!is_of_service(name, "127.0.0.1:1"), "{name}");
        }
        for setting in settings() {
            let variable = setting.variable();
            let name = variable.strip_prefix("KAIROS_IDENTITY_").unwrap();
            assert!(!is_of_service(name, "tcp://10.96.0.7:1"), "{name}");
        }
    }
}
