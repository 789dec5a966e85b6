use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time.
const CONNECTIONS: usize = 32;

/// Serves `/metrics` (Prometheus text format 0.0.4) and `/healthz`. `status`
/// gives the numbers of all three processes as one JSON object.
pub(crate) async fn serve(
    listener: TcpListener,
    status: impl Fn() -> Value + Clone + Send + Sync + 'static,
) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the metrics endpoint");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let status = status.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &status);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A scraper that goes away is no news.
            let _ = connection.await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, status: &impl Fn() -> Value) -> Response<Full<Bytes>> {
    let (code, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (
            StatusCode::OK,
            "text/plain; version=0.0.4",
            render(&status()),
        ),
        (&Method::GET, "/healthz") => match trouble(&status()) {
            None => (StatusCode::OK, "text/plain", "ok\n".into()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why),
        },
        (&Method::GET, _) => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics and /healthz\n".into(),
        ),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "GET only\n".into(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(kind),
    );
    response
}

/// Why lockgate is not well, as far as keeper can tell.
fn trouble(status: &Value) -> Option<String> {
    if let Some(error) = status
        .pointer("/keeper/record/error")
        .and_then(Value::as_str)
    {
        return Some(format!("the record: {error}\n"));
    }
    match status.pointer("/keeper/gate") {
        Some(Value::Bool(true)) => None,
        _ => Some("the gate process is not there\n".into()),
    }
}

/// One family per line: name, type, help, where its value is.
const SINGLE: [(&str, &str, &str, &str); 18] = [
    (
        "lockgate_lease_held",
        "gauge",
        "Whether the kernel redirects.",
        "/gate/lease_held",
    ),
    (
        "lockgate_programs_attached",
        "gauge",
        "eBPF programs attached.",
        "/gate/links",
    ),
    (
        "lockgate_connections",
        "gauge",
        "Connections that are open.",
        "/gate/connections",
    ),
    (
        "lockgate_connections_accepted_total",
        "counter",
        "Clients that were redirected.",
        "/gate/accepted",
    ),
    (
        "lockgate_connections_stray_total",
        "counter",
        "Clients that came without a redirect and were reset.",
        "/gate/stray",
    ),
    (
        "lockgate_connections_ended_total",
        "counter",
        "Connections that were open before their destination was protected.",
        "/gate/ended",
    ),
    (
        "lockgate_kernel_events_lost_total",
        "counter",
        "Refusals of the kernel that were counted but not told.",
        "/gate/kernel_lost",
    ),
    (
        "lockgate_connections_refused_total",
        "counter",
        "Clients that did not get a session.",
        "/proxy/refused",
    ),
    (
        "lockgate_spool_full_total",
        "counter",
        "Events that found no room in the spool.",
        "/proxy/spool_full",
    ),
    (
        "lockgate_spool_segments",
        "gauge",
        "Spool segments on disk.",
        "/keeper/record/spool_segments",
    ),
    (
        "lockgate_spool_segments_max",
        "gauge",
        "Spool segments that may be on disk.",
        "/keeper/record/spool_max_segments",
    ),
    (
        "lockgate_spool_bytes",
        "gauge",
        "Bytes of spool segments.",
        "/keeper/record/spool_bytes",
    ),
    (
        "lockgate_events_sealed_total",
        "counter",
        "Events chained and stored since the start.",
        "/keeper/record/sealed",
    ),
    (
        "lockgate_events_stored",
        "gauge",
        "Events in the store.",
        "/keeper/record/stored",
    ),
    (
        "lockgate_segments_damaged_total",
        "counter",
        "Damaged spool segments that were set aside.",
        "/keeper/record/damaged",
    ),
    (
        "lockgate_clickhouse_unshipped_events",
        "gauge",
        "Events that wait for ClickHouse.",
        "/keeper/record/unshipped",
    ),
    (
        "lockgate_configuration_epoch",
        "gauge",
        "Epoch of the configuration in use.",
        "/keeper/epoch",
    ),
    (
        "lockgate_credentials",
        "gauge",
        "Passwords that keeper holds.",
        "/keeper/credentials",
    ),
];

fn render(status: &Value) -> String {
    let mut out = String::new();
    for (name, kind, help, at) in SINGLE {
        let number = match status.pointer(at) {
            Some(Value::Bool(yes)) => u64::from(*yes),
            Some(value) => match value.as_u64() {
                Some(number) => number,
                None => continue,
            },
            None => continue,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {number}"
        );
    }
    let name = "lockgate_commands_total";
    let _ = writeln!(
        out,
        "# HELP {name} Decided commands.\n# TYPE {name} counter"
    );
    for entry in status
        .pointer("/proxy/verdicts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |key: &str| escape(entry[key].as_str().unwrap_or_default());
        for verdict in ["allowed", "denied", "observed"] {
            let _ = writeln!(
                out,
                "{name}{{workload=\"{}\",target=\"{}\",verdict=\"{verdict}\"}} {}",
                text("workload"),
                text("target"),
                entry[verdict].as_u64().unwrap_or(0)
            );
        }
    }
    let name = "lockgate_kernel_refused_total";
    let _ = writeln!(
        out,
        "# HELP {name} What the kernel refused.\n# TYPE {name} counter"
    );
    for (reason, count) in status
        .pointer("/gate/kernel_refused")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let count = count.as_u64().unwrap_or(0);
        let _ = writeln!(out, "{name}{{reason=\"{}\"}} {count}", escape(reason));
    }
    out
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let well = serde_json::json!({ "keeper": { "gate": true, "record": { "error": null } } });
        assert_eq!(trouble(&well), None);
        let mut ill = well.clone();
        ill["keeper"]["record"]["error"] = "disk full".into();
        assert!(trouble(&ill).unwrap().contains("disk full"));
        let mut ill = well;
        ill["keeper"]["gate"] = false.into();
        assert!(trouble(&ill).unwrap().contains("gate"));
    }

    #[test]
    fn numbers_of_all_three_are_rendered() {
        let status = serde_json::json!({
            "gate": { "lease_held": true, "kernel_refused": { "down": 3 } },
            "proxy": { "verdicts": [{ "workload": "a\"b", "target": "t", "allowed": 2, "denied": 1 }] },
            "keeper": { "record": { "sealed": 7, "unshipped": null } },
        });
        let text = render(&status);
        assert!(text.contains("lockgate_lease_held 1\n"), "{text}");
        assert!(text.contains("lockgate_events_sealed_total 7\n"));
        assert!(text.contains(
            "lockgate_commands_total{workload=\"a\\\"b\",target=\"t\",verdict=\"denied\"} 1\n"
        ));
        assert!(text.contains("lockgate_kernel_refused_total{reason=\"down\"} 3\n"));
        assert!(
            !text.contains("unshipped"),
            "without ClickHouse there is no such number"
        );
    }
}
