//! A small database, as a catalogue and in the words of the tests.
#![allow(dead_code)] // Each test binary uses its part.

use std::sync::{Arc, mpsc};

use lockgate_command::{Access, ResourceKind, Shown};
use lockgate_sql::{
    Analyser, AnalyserSettings, Analysis, Catalogue, Reading, Resolved, Rows, SearchPath,
    SessionNames, Tags, resolve,
};

pub fn analyser() -> Analyser {
    Analyser::new(AnalyserSettings {
        statement_bytes: 65536,
        cache_bytes: 8 << 20,
        threads: 1,
    })
}

/// Reads `text` and waits for it.
pub fn analyse(analyser: &Analyser, text: &str) -> Arc<Analysis> {
    let (done, waits) = mpsc::channel();
    let deliver = Box::new(move |analysis| {
        let _ = done.send(analysis);
    });
    analyser.analyse(text.as_bytes(), Reading::default(), deliver);
    waits.recv().expect("every text gets an answer")
}

pub fn session(path: SearchPath) -> SessionNames {
    SessionNames {
        database: "shop".into(),
        user: "clerk".into(),
        search_path: path,
    }
}

pub fn usual_path() -> SearchPath {
    SearchPath::Known(vec!["pg_catalog".into(), "public".into()])
}

pub fn tags() -> Tags {
    Tags::new(&[lockgate_config::Tag {
        columns: "public.customers.ssn".into(),
        tag: "pii".into(),
        mask: None,
    }])
}

pub fn meaning(analyser: &Analyser, text: &str, path: SearchPath, tags: &Tags) -> Resolved {
    resolve(&analyse(analyser, text), &catalogue(), &session(path), tags)
}

/// `verb what, verb what, shows output: column`, or `refused: construct`.
pub fn words(resolved: &Resolved) -> String {
    if let Some(refusal) = &resolved.statement.refusal {
        return format!("refused: {}", refusal.construct);
    }
    let mut words: Vec<String> = resolved.statement.accesses.iter().map(word).collect();
    for Shown { output, column, .. } in &resolved.statement.shown {
        words.push(format!("shows {output}: {}", column.path()[1..].join(".")));
    }
    words.sort();
    words.join(", ")
}

pub fn word(access: &Access) -> String {
    let (verb, path) = (access.verb, access.resource.path());
    let inner = path.get(1..).unwrap_or_default().join(".");
    match access.resource.kind() {
        ResourceKind::Target => format!("{verb}"),
        ResourceKind::Database => format!("{verb} database {}", path[0]),
        ResourceKind::Schema => format!("{verb} schema {inner}"),
        ResourceKind::Table | ResourceKind::Column => format!("{verb} {inner}"),
        ResourceKind::Function => format!("{verb} {inner}()"),
    }
}

/// Tables with their columns; views; things that run somebody's code.
pub fn catalogue() -> Catalogue {
    let relations = "
        1 pg_catalog pg_class r
        2 pg_catalog pg_authid r
        3 pg_catalog pg_settings v
        4 pg_catalog pg_stats v
        5 pg_catalog pg_stat_activity v
        6 pg_catalog pg_proc r
        7 information_schema tables v
        8 pg_catalog pg_type r
        9 pg_catalog pg_namespace r
        10 pg_catalog pg_subscription r
        100 public orders r
        101 public customers r
        102 public items r
        103 public order_view v
        104 public customer_view v
        105 public customer_names v
        106 public coded_view v
        107 audit log r
        108 tenant orders r
        109 public orders_2024 r
        110 public ids S
        111 public row_view v
        112 public view_of_view v
        113 public old_customers r
        114 tenant accounts r
        115 public pg_stat_statements v
        120 shop makers r
        121 shop parts r
        122 shop prices r
        123 shop notes r";
    let columns = "
        100 1 id f int4
        100 2 customer_id f int4
        100 3 amount f numeric
        100 4 status f text
        101 1 id f int4
        101 2 name f text
        101 3 ssn f text
        102 1 id f int4
        102 2 order_id f int4
        107 1 what f text
        113 1 id f int4
        113 2 ssn f text
        120 1 id f int4
        121 1 id f int4
        121 2 maker f int4";
    let dependencies = "
        103 100 0 f
        103 100 1 f
        104 101 0 f
        104 101 3 f
        105 101 0 f
        105 101 2 f
        106 100 0 f
        111 101 0 t
        112 104 0 f
        112 104 1 f";
    let functions = "
        900 public charge - - - f
        901 audit purge - - - f
        902 public initcap - - - f
        903 tenant purge - - - f
        904 extra lower citext 1.6 c+$libdir/citext+citext_hash f
        905 extra similarity pg_trgm 1.6 c+$libdir/pg_trgm+similarity f
        906 extra reset pg_stat_statements 1.10 c+$libdir/pg_stat_statements+pg_stat_statements_reset_1_7 f
        907 extra strange pg_trgm 9.9 c+$libdir/pg_trgm+similarity f
        908 extra mixed pg_trgm 1.6 c+$libdir/pg_trgm+similarity f
        909 extra mixed - - - f";
    let operators = "
        950 public === - - 900
        951 extra %% pg_trgm 1.6 905+=eqsel+=eqjoinsel
        952 extra %%% pg_trgm 1.6 900";
    let names = "
        type public celsius 900 20001
        type public mood - 20002
        type public orders - 20003
        type extra label 905+=int4in 20004
        collation public german - 20005";
    let code = "
        106 read 900
        107 write !";
    let foreign_keys = "
        120 121 c a id
        121 122 c c id
        121 123 n n id";
    let answers = [
        rows(relations),
        rows(columns),
        rows(dependencies),
        rows("109 100\n113 101"),
        rows(functions),
        rows(operators),
        rows(names),
        rows(code),
        rows(foreign_keys),
        rows("public\naudit\ntenant\nextra\nshop\npg_catalog\ninformation_schema"),
    ];
    Catalogue::from_rows(1, &answers).expect("the rows are as the queries give them")
}

fn rows(text: &str) -> Rows {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let value = |word: &str| match word {
        "-" => Some(String::new()),
        word => Some(word.replace('+', " ")),
    };
    lines
        .map(|line| line.split(' ').map(value).collect())
        .collect()
}
