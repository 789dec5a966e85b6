//! Values of tagged columns as those see them who may not view them.

use lockgate_tests::{
    Agent, AgentConfig, Paused, Postgres, Wire, bind, execute, message, parse, query, sync, text,
};

use crate::stage::{self, Stage};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A column for each mask and type: its name, its type, its mask, and what the
/// server itself makes of it.
const COLUMNS: &[(&str, &str, &str, &str)] = &[
    (
        "t",
        "text",
        "{ keep_last = 4 }",
        "repeat('*', length(t) - least(4, length(t) / 2)) || right(t, least(4, length(t) / 2))",
    ),
    (
        "v",
        "varchar(20)",
        "{ keep_first = 2 }",
        "left(v, least(2, length(v) / 2)) || repeat('*', length(v) - least(2, length(v) / 2))",
    ),
    (
        "c",
        "char(12)",
        "{ keep_last = 2 }",
        "(repeat('*', length(c) - least(2, length(c) / 2)) || right(c::text, least(2, length(c) / 2)))::char(12)",
    ),
    (
        "o",
        "code",
        "{ keep_first = 1 }",
        "left(o, least(1, length(o) / 2)) || repeat('*', length(o) - least(1, length(o) / 2))",
    ),
    (
        "r",
        "text",
        "\"redact\"",
        "r is not null then '[redacted]' end",
    ),
    (
        "j",
        "json",
        "\"redact\"",
        "j is not null then '\"[redacted]\"'::json end",
    ),
    (
        "jb",
        "jsonb",
        "\"redact\"",
        "jb is not null then '\"[redacted]\"'::jsonb end",
    ),
    ("x", "inet", "\"null\"", "null::inet"),
    (
        "d",
        "date",
        "{ truncate = \"year\" }",
        "d between '0001-01-01' and '9999-12-31' then date_trunc('year', d)::date end",
    ),
    (
        "dm",
        "date",
        "{ truncate = \"month\" }",
        "dm between '0001-01-01' and '9999-12-31' then date_trunc('month', dm)::date end",
    ),
    (
        "ts",
        "timestamp",
        "{ truncate = \"month\" }",
        "isfinite(ts) then date_trunc('month', ts) end",
    ),
    (
        "tz",
        "timestamptz",
        "{ truncate = \"day\" }",
        "isfinite(tz) then date_trunc('day', tz) end",
    ),
    (
        "i2",
        "smallint",
        "{ bucket = 100 }",
        "i2 > -32700 then (floor(i2 / 100.0) * 100)::smallint end",
    ),
    (
        "i4",
        "integer",
        "{ bucket = 1000 }",
        "i4 > -2147483000 then (floor(i4 / 1000.0) * 1000)::integer end",
    ),
    (
        "i8",
        "bigint",
        "{ bucket = 1000000 }",
        "i8 > -9223372036854000000 then (floor(i8 / 1000000.0) * 1000000)::bigint end",
    ),
    (
        "n",
        "numeric",
        "{ bucket = 500 }",
        "abs(n) < 1e38 then floor(n / 500) * 500 end",
    ),
    (
        "f4",
        "real",
        "{ bucket = 100 }",
        "abs(f4) < 1e9 then (floor(f4 / 100) * 100)::real end",
    ),
    (
        "f8",
        "double precision",
        "{ bucket = 10 }",
        "abs(f8) < 1e9 then floor(f8 / 10) * 10 end",
    ),
];

/// What the owner sees that the others see masked.
fn expected(column: &str, by_server: &str) -> String {
    match by_server.contains(" then ") {
        true => format!("case when {by_server} as {column}"),
        false => format!("{by_server} as {column}"),
    }
}

fn tags() -> String {
    let columns = COLUMNS.iter().map(|(column, _, mask, _)| {
        format!("{{ columns = \"public.vault.{column}\", tag = \"pii\", mask = {mask} }}")
    });
    let hashed = ["public.vault.h", "public.vault.u"];
    let hashed = hashed
        .iter()
        .map(|column| format!("{{ columns = \"{column}\", tag = \"secret\", mask = \"hash\" }}"));
    let all: Vec<String> = columns.chain(hashed).collect();
    format!("tags = [\n{}\n]\n", all.join(",\n"))
}

fn masked(postgres: &Postgres, tags: &str) -> AgentConfig {
    let mut config = stage::config(postgres, tags);
    config.body += "[mask]\nkey = { file = \"SECRETS/mask\" }\n";
    config.secrets.push(("mask".into(), KEY.into()));
    config
}

/// `report` and `app` may read the vault, `owner` may view it.
fn stage() -> Stage {
    let postgres = Postgres::start(&Default::default()).unwrap();
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, of, ..)| format!("{name} {of}"))
        .collect();
    let sql = format!(
        "create domain code as varchar(40);
         create table vault (id int primary key, {}, h text, u uuid, open text);
         insert into vault
         select g, md5(g::text), left(md5(g::text), g % 20), left(md5(g::text), g % 12), md5(g::text),
            'private-' || g, json_build_object('private', g), jsonb_build_object('private', g), '10.1.2.3',
            date '1969-11-11' + g * 97, date '1999-11-11' + g * 97,
            timestamp '1991-02-03 04:05:06.789' + g * interval '31 days 3 hours', timestamptz '2001-02-03 04:05:06.7+00' + g * interval '31 days 3 hours',
            g * 331 % 32767 * (g % 2 * 2 - 1), g * 7919 * (g % 2 * 2 - 1), g * 79190000007 * (g % 2 * 2 - 1),
            g * 123.457 * (g % 2 * 2 - 1), g * 12.5 * (g % 2 * 2 - 1), g * 1.25 * (g % 2 * 2 - 1),
            'private-' || g % 10, md5((g % 10)::text)::uuid, 'open-' || g
         from generate_series(1, 300) g;
         insert into vault (id) values (301);
         insert into vault values (302, 'Žluťoučký kůň', 'ž', '', 'a\\tb\\\\\"c''d', E'a\\nb', 'null', '[]', '::1',
            'infinity', '-infinity', 'infinity', '-infinity', -32768, -2147483648, -9223372036854775808,
            'NaN', 'NaN', 'Infinity', E'x\\ty', md5('x')::uuid, E'with\\ttab, \"quotes\", \\\\ and\\nlines');
         insert into vault (id, d, dm, n, f4, f8, t) values (303, '0044-03-15 BC', '12345-06-07', 1e39, 1e38, 1e300, ''),
            (304, '0001-01-01', '2024-02-29', -0.001, -0.5, -0.5, 'ab'), (305, null, null, 99999.9999, 0, 0, E'\\\\N');
         grant select on vault to report_ro; grant select, insert, update on vault to app_rw; grant all on vault to owner;",
        columns.join(", ")
    );
    postgres.admin("shop", &sql).unwrap();
    let agent = Agent::start(&masked(&postgres, &tags())).unwrap();
    Stage::over(agent, postgres)
}

/// All columns that a mask is for, then the one that none is for.
fn list() -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    format!("id, {}, h, u, open", names.join(", "))
}

/// Every way to the values gives the client what the server itself computes
/// from them, and nothing else.
#[test]
fn every_mask_in_every_format_is_what_the_server_would_make_of_it() {
    let stage = stage();
    let wanted: Vec<String> = COLUMNS
        .iter()
        .map(|(column, _, _, by_server)| expected(column, by_server))
        .collect();
    let program = format!(
        r#"
import hmac, hashlib, uuid
admin, columns, wanted, key = sys.argv[2], {columns:?}, {wanted:?}, {KEY:?}.encode()
derived = hmac.digest(key, b"lockgate mask 1\0" + b"secret", "sha256")
def hashed(text):
    return text and hmac.digest(derived, text.encode(), "sha256")[:16].hex()
def hashed_uuid(value):
    if value is None: return None
    h = int.from_bytes(hmac.digest(derived, value.bytes, "sha256")[:16], "big")
    h = h & ~(0xf << 76) | 8 << 76
    return uuid.UUID(int=h & ~(3 << 62) | 2 << 62)
def rows(c, sql, **how):
    return c.execute(sql, **how).fetchall()
with psycopg.connect(admin, autocommit=True) as c:
    c.execute("set timezone = 'UTC'")
    truth = [r[:-3] + (hashed(r[-3]), hashed_uuid(r[-2]), r[-1]) for r in rows(c, f"select id, {{wanted}}, h, u, open from vault order by id")]
assert len(truth) == 305
select = f"select {{columns}} from vault"
# These compare nothing that is tagged.
ways = [select + " order by id",
    f"with a as (select * from vault) select {{columns}} from a order by id",
    f"select {{columns}} from (select * from vault v) as x order by id",
    f"({{select}} where id <= 100) union all ({{select}} where id > 100 and id < 200) union all {{select}} where id >= 200 order by 1",
    "select * from vault order by id", "select (v).* from vault v order by id"]
with psycopg.connect(dsn, autocommit=True) as c:
    c.execute("set timezone = 'UTC'")
    for number, way in enumerate(ways):
        for binary in (False, True):
            for prepare in (False, True):
                try:
                    got = rows(c, way, binary=binary, prepare=prepare)
                except psycopg.Error as e:
                    # Not every way is certain; none shows a value.
                    assert number == 5 and "lockgate" in str(e), (way, e)
                    print("denied", number)
                    continue
                for g, t in zip(got, truth, strict=True):
                    assert g == t, (way, binary, [(a, b) for a, b in zip(g, t) if a != b])
    # Of simple queries.
    got = rows(psycopg.ClientCursor(c), ways[0])
    assert got == truth
    print("selects")
    types = [d.type_code for d in c.execute(ways[0]).description]
    for form in ["", "(format csv)", "(format csv, header)", "(format csv, delimiter ';', force_quote *)", "(delimiter ',')"]:
        for source in (f"vault ({{columns}})", f"({{ways[0]}})"):
            with c.cursor().copy(f"copy {{source}} to stdout {{form}}") as copy:
                data = b"".join(bytes(b) for b in copy)
            with psycopg.connect(admin) as a:
                a.execute("set timezone = 'UTC'")
                a.execute("create temp table back (like vault)")
                back = form.replace(", force_quote *", "")
                with a.cursor().copy(f"copy back ({{columns}}) from stdin {{back}}") as copy:
                    copy.write(data)
                a.execute("set extra_float_digits = 3")
                got = sorted(rows(a, f"select {{columns}} from back"))
                a.rollback()
            for g, t in zip(got, truth, strict=True):
                assert g == t, (form, source, [(x, y) for x, y in zip(g, t) if x != y])
    with c.cursor().copy(f"copy ({{ways[0]}}) to stdout (format binary)") as copy:
        copy.set_types(types)
        got = list(copy.rows())
    for g, t in zip(got, truth, strict=True):
        assert g == t, ("binary", [(x, y) for x, y in zip(g, t) if x != y])
    print("copies")
"#,
        columns = list(),
        wanted = wanted.join(", "),
    );
    let admin = format!(
        "host={} user=postgres dbname=shop",
        stage.postgres.socket().display()
    );
    let output = stage
        .report
        .python(
            &format!("import psycopg, sys\ndsn = sys.argv[1]\n{program}"),
            &[&stage.dsn(""), &admin],
        )
        .unwrap();
    assert!(output.ok(), "{output:?}");
    assert!(output.stdout.ends_with("selects\ncopies\n"), "{output:?}");
}

const RAW: &str = "123-45-6789";

/// As above with the shop's own table.
fn customers(more: &str) -> Stage {
    let postgres = Postgres::start(&Default::default()).unwrap();
    let tags =
        "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\", mask = { keep_last = 4 } }]";
    let mut config = stage::config(&postgres, tags);
    config.policies += more;
    let agent = Agent::start(&config).unwrap();
    Stage::over(agent, postgres)
}

#[test]
fn who_may_view_sees_the_value_and_the_record_says_who_saw_what() {
    let stage = customers("");
    let owner = stage.agent.cgroup.unit("owner.service").unwrap();
    let sql = "select id, ssn from customers order by id";
    let seen = stage.psql(&owner, &[sql]);
    assert_eq!(seen.stdout, "1|123-45-6789\n2|987-65-4321\n", "{seen:?}");
    let seen = stage.psql(&stage.report, &[sql]);
    assert_eq!(seen.stdout, "1|*******6789\n2|*******4321\n", "{seen:?}");
    let masked = ["--workload", "report", "--verdict", "mask"];
    let events = stage.agent.events(&masked, 1).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let said = events[0].to_string();
    assert!(
        said.contains("orders-db/shop/public/customers/ssn"),
        "{said}"
    );

    // What may be compared is another matter.
    let blind = stage.psql(
        &stage.report,
        &["select count(*) from customers where ssn like '123%'"],
    );
    assert_eq!(blind.stdout, "", "{blind:?}");
    assert!(
        blind.stderr.contains("no policy permits `filter`"),
        "{blind:?}"
    );

    let explained = stage
        .agent
        .lockgate(&[
            "policy",
            "explain",
            "--live",
            "--workload",
            "report",
            "--target",
            "orders-db",
            "--database",
            "shop",
            sql,
        ])
        .unwrap();
    // As docs/masking.md shows it, but for where the names are from.
    let (said, _) = explained.stdout.split_once("\n\nNames are").unwrap();
    let page = include_str!("../../../docs/masking.md");
    assert!(
        said.contains("masked by { keep_last = 4 }") && page.contains(said),
        "{said}"
    );
}

#[test]
fn what_changes_rows_shows_them_masked() {
    let stage = customers("");
    let output = stage.psql(
        &stage.app,
        &[
            "update customers set name = 'Anna' where id = 1 returning id, name, ssn",
            "delete from customers where id = 2 returning *",
        ],
    );
    assert_eq!(
        output.stdout, "1|Anna|*******6789\n2|Bob|*******4321\n",
        "{output:?}"
    );
    assert_eq!(stage.postgres.count("customers").unwrap(), 1);
    // Who writes the column and is shown it could compare.
    let output = stage.psql(
        &stage.app,
        &["insert into customers values (7, 'Zoe', '777-77-7777') returning ssn"],
    );
    assert!(
        output.stderr.contains("no policy permits `view`"),
        "{output:?}"
    );
    let stored = stage
        .postgres
        .admin("shop", "select ssn from customers")
        .unwrap();
    assert_eq!(stored, "123-45-6789");
}

/// A policy that changes in the middle of a session holds from then on.
#[test]
fn a_view_that_is_granted_or_taken_away_shows_from_the_next_statement_on() {
    let stage = customers("");
    let program = r#"
import subprocess, time
def seen(c):
    return c.execute("select ssn from customers where id = 1", prepare=True).fetchone()[0]
def until(c, wanted):
    for _ in range(100):
        if seen(c) == wanted: return
        time.sleep(.05)
    raise SystemExit(f"still {seen(c)}")
with psycopg.connect(dsn, autocommit=True) as c:
    until(c, "*******6789"); print("masked", flush=True)
    sys.stdin.readline(); until(c, "123-45-6789"); print("raw", flush=True)
    sys.stdin.readline(); until(c, "*******6789"); print("masked", flush=True)
"#;
    let mut client = Paused::start(&stage.report, program, &stage.dsn("")).unwrap();
    assert_eq!(client.line().unwrap(), "masked");
    let path = stage.agent.path("policies/test.cedar");
    let before = std::fs::read_to_string(&path).unwrap();
    let view = "@id(\"report-views\") permit (principal == Workload::\"report\", action == Action::\"view\", resource in Target::\"orders-db\");";
    std::fs::write(&path, format!("{before}{view}")).unwrap();
    assert!(stage.agent.lockgate(&["reload"]).unwrap().ok());
    client.go_on().unwrap();
    assert_eq!(client.line().unwrap(), "raw");
    std::fs::write(&path, before).unwrap();
    assert!(stage.agent.lockgate(&["reload"]).unwrap().ok());
    client.go_on().unwrap();
    assert_eq!(client.line().unwrap(), "masked");
}

/// Formats are for each column.
#[test]
fn a_bind_may_ask_for_each_column_in_a_format_of_its_own() {
    let stage = customers("");
    let mut wire = Wire::dial(&stage.report, stage.postgres.address()).unwrap();
    wire.start(&[("user", "x"), ("database", "shop")]).unwrap();
    let formats = |formats: &[u16]| {
        let mut body = [&text("")[..], &text(""), &[0; 4]].concat();
        body.extend((formats.len() as u16).to_be_bytes());
        body.extend(formats.iter().flat_map(|code| code.to_be_bytes()));
        message(b'B', &body)
    };
    let select = parse("", "select id, ssn from customers where id = 1");
    for (asked, id) in [
        (&[][..], &b"1"[..]),
        (&[0], b"1"),
        (&[1], &[0, 0, 0, 1]),
        (&[1, 0], &[0, 0, 0, 1]),
        (&[0, 1], b"1"),
    ] {
        let messages = [&select[..], &formats(asked), &execute("", 0), &sync()].concat();
        let answer = wire.ask(&messages).unwrap();
        let ssn = b"*******6789";
        let row = [
            &2_u16.to_be_bytes()[..],
            &(id.len() as u32).to_be_bytes(),
            id,
            &(ssn.len() as u32).to_be_bytes(),
            ssn,
        ]
        .concat();
        assert_eq!(answer.of(b'D'), [&row[..]], "{asked:?}");
    }
}

/// Ways to read a result past the mask of the portal that it is bound to.
#[test]
fn a_portal_of_masked_values_is_read_masked_or_not_at_all() {
    let code = r#"
permit (principal == Workload::"report", action in [Action::"call", Action::"opaque", Action::"inspect"], resource in Target::"orders-db");
"#;
    let stage = customers(code);
    stage
        .postgres
        .admin(
            "shop",
            "create function peek(name text) returns text language plpgsql as
             $$ declare c refcursor := name; r record; begin fetch c into r; return r::text; exception when others then return sqlerrm; end $$;
             grant execute on function peek to report_ro;",
        )
        .unwrap();
    let select = "select id, ssn from customers order by id";
    let run = |messages: &[Vec<u8>]| {
        let mut wire = Wire::dial(&stage.report, stage.postgres.address()).unwrap();
        wire.start(&[("user", "x"), ("database", "shop")]).unwrap();
        let mut bytes = Vec::new();
        for message in messages {
            let answer = wire.ask(message).unwrap();
            bytes.extend(answer.bytes());
            bytes.extend(answer.errors().join("\n").into_bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let whole = |portal: &str| [parse("", select), bind(portal, ""), execute(portal, 1)].concat();
    let step = |parts: &[Vec<u8>]| [parts.concat(), sync()].concat();
    let peek = |name: &str| format!("select peek('{name}')");

    let plain = run(&[step(&[whole("")])]);
    assert!(plain.contains("*******6789"), "{plain}");
    for (attack, messages) in [
        (
            "a named portal",
            vec![
                query("begin"),
                step(&[whole("p")]),
                query("fetch all from p"),
            ],
        ),
        (
            "a named portal and code",
            vec![query("begin"), step(&[whole("p")]), query(&peek("p"))],
        ),
        (
            "the unnamed portal and FETCH",
            vec![
                query("begin"),
                step(&[whole("")]),
                query("fetch all from \"\""),
            ],
        ),
        (
            "the unnamed portal and code, in a Query",
            vec![query("begin"), step(&[whole("")]), query(&peek(""))],
        ),
        (
            "the unnamed portal and code bound before",
            vec![
                query("begin"),
                step(&[
                    parse("s", &peek("")),
                    bind("code", "s"),
                    whole(""),
                    execute("code", 0),
                ]),
            ],
        ),
        (
            "the same, one by one",
            vec![
                query("begin"),
                step(&[parse("s", &peek("")), bind("code", "s")]),
                step(&[whole("")]),
                step(&[execute("code", 0)]),
            ],
        ),
        (
            "the same by a function of the server's",
            vec![
                query("begin"),
                step(&[
                    parse("s", "select cursor_to_xml('', 1, true, false, '')"),
                    bind("code", "s"),
                    whole(""),
                    execute("code", 0),
                ]),
            ],
        ),
        (
            "a cursor",
            vec![
                query("begin"),
                query(&format!("declare c cursor for {select}")),
                query("fetch all from c"),
            ],
        ),
        (
            "PREPARE in SQL",
            vec![query(&format!("prepare q as {select}")), query("execute q")],
        ),
        (
            "EXECUTE of what Parse prepared",
            vec![step(&[parse("q", select)]), query("execute q")],
        ),
        (
            "several statements",
            vec![query(&format!("{select}; {select}"))],
        ),
        (
            "a table made of it",
            vec![
                query("create temp table t as select ssn from customers"),
                query("select * from t"),
            ],
        ),
        (
            "a type that it is turned into",
            vec![
                query("select ssn::bytea from customers"),
                query("select ssn || '' from customers"),
            ],
        ),
        (
            "COPY of a form that is not masked",
            vec![
                query("copy customers to stdout (null 'x')"),
                query("copy customers to stdout (encoding 'sjis')"),
            ],
        ),
        (
            "COPY by another delimiter",
            vec![query("copy customers to stdout (delimiter '|')")],
        ),
    ] {
        let seen = run(&messages);
        assert!(
            !seen.contains(RAW) && !seen.contains("123-45"),
            "{attack}: {seen}"
        );
        // Or by the server: a portal that runs is not read.
        let refused = seen.contains("lockgate") || seen.contains("cannot be run");
        assert!(refused, "{attack} was not refused: {seen}");
    }
    // The server itself gives the values away by these.
    let owner = stage.agent.cgroup.unit("owner.service").unwrap();
    let mut wire = Wire::dial(&owner, stage.postgres.address()).unwrap();
    wire.start(&[("user", "x"), ("database", "shop")]).unwrap();
    wire.ask(&query("begin")).unwrap();
    let before = [
        parse("s", &peek("")),
        bind("code", "s"),
        whole(""),
        execute("code", 0),
    ];
    let answer = wire.ask(&step(&before)).unwrap();
    let seen = String::from_utf8_lossy(&answer.bytes()).into_owned();
    assert!(seen.contains("987-65-4321"), "{seen}");
}

#[test]
fn a_mask_that_does_not_fit_is_named_and_denies() {
    let postgres = Postgres::start(&Default::default()).unwrap();
    let tags = "tags = [{ columns = \"shop.public.customers.ssn\", tag = \"pii\", mask = { bucket = 10 } }]";
    let agent = Agent::start(&stage::config(&postgres, tags)).unwrap();
    let stage = Stage::over(agent, postgres);
    let output = stage.psql(&stage.report, &["select ssn from customers"]);
    assert_eq!(output.stdout, "", "{output:?}");
    assert!(
        output
            .stderr
            .contains("the mask { bucket = 10 } does not fit the type text"),
        "{output:?}"
    );
    let output = stage
        .agent
        .lockgate(&["check", "--target", "orders-db"])
        .unwrap();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.all().contains(
            "`shop.public.customers.ssn` cannot be masked: the mask { bucket = 10 } does not fit"
        ),
        "{output:?}"
    );
}

/// Half of a character can look like what stands between columns, or like a
/// backslash before it.
#[test]
fn a_copy_in_an_encoding_that_is_not_followed_is_not_shown() {
    let stage = customers("");
    for (encoding, back) in [
        ("SJIS", "select 1"),
        ("SJIS", "set client_encoding to 'UTF8'"),
    ] {
        let mut wire = Wire::dial(&stage.report, stage.postgres.address()).unwrap();
        let parameters = [
            ("user", "x"),
            ("database", "shop"),
            ("client_encoding", encoding),
        ];
        wire.start(&parameters).unwrap();
        wire.ask(&query(back)).unwrap();
        let copy = "copy (select chr(12477), ssn, chr(12477) || ';x' from customers) to stdout (delimiter ';')";
        wire.send(&[query("reset all"), query(copy)].concat());
        wire.until_ready().unwrap();
        let answer = wire.until_ready().unwrap();
        let seen = String::from_utf8_lossy(&answer.bytes()).into_owned();
        assert!(!seen.contains("123-45"), "{seen}");
        assert!(seen.contains("lockgate"), "{seen}");
    }
    // What could not be masked was denied, and nothing was masked.
    let of = |verdict| ["--workload", "report", "--verdict", verdict];
    let denied = stage.agent.events(&of("deny"), 2).unwrap();
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert_eq!(stage.agent.events(&of("mask"), 0).unwrap().len(), 0);
}
