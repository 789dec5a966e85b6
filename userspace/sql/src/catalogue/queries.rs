//! The SQL that reads a catalogue. It must run on PostgreSQL 14 to 18, as a
//! role without rights of its own. 16384 is FirstNormalObjectId: what has a
//! smaller oid came with the server.

/// In the order that [`super::Catalogue::from_rows`] expects.
pub(super) const ALL: &[&str] = &[
    RELATIONS,
    COLUMNS,
    DEPENDENCIES,
    PARENTS,
    FUNCTIONS,
    OPERATORS,
    NAMES,
    CODE,
    FOREIGN_KEYS,
    SCHEMAS,
];

/// Temporary schemas are those named pg_temp_N and pg_toast_temp_N.
const RELATIONS: &str = "
select c.oid, n.nspname, c.relname, c.relkind
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_(toast_)?temp_'
order by c.oid";

/// System columns have negative numbers and are left out: every relation has
/// the same ones. The type of a domain is the one that it is of, as on the wire.
const COLUMNS: &str = "
with recursive base(oid, of) as (
    select t.oid, t.oid from pg_type t where t.typtype <> 'd'
    union all
    select d.oid, base.of from pg_type d join base on base.oid = d.typbasetype where d.typtype = 'd'
)
select a.attrelid, a.attnum, a.attname, a.attgenerated <> '',
    case when t.oid < 16384 or (t.typname = 'citext' and e.extname = 'citext') then t.typname
        else m.nspname || '.' || t.typname end
from pg_attribute a join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    join base on base.oid = a.atttypid
    join pg_type t on t.oid = base.of
    join pg_namespace m on m.oid = t.typnamespace
    left join pg_depend d on d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
    left join pg_extension e on e.oid = d.refobjid
where a.attnum > 0 and not a.attisdropped and a.attrelid >= 16384
  and c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_(toast_)?temp_'
order by a.attrelid, a.attnum";

/// What views and materialised views read. A whole row is no dependency on any
/// column, so it is looked for in the definition.
const DEPENDENCIES: &str = "
select distinct r.ev_class, d.refobjid, d.refobjsubid, r.ev_action::text like '%:varattno 0 %'
from pg_rewrite r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
where r.rulename = '_RETURN' and r.oid >= 16384";

const PARENTS: &str = "select inhrelid, inhparent from pg_inherits";

/// Functions that did not come with the server, the extension that each is a
/// member of, and what it runs: the library and symbol of C, the name of
/// internal code, a digest of SQL with the extension's schema left out, the
/// functions of an aggregate. The owner of an extension can make any function
/// of his own a member, so membership alone proves nothing; but only a
/// superuser makes functions of C and internal ones, and SQL counts only where
/// a superuser owns it.
const FUNCTIONS: &str = "
select p.oid, n.nspname, p.proname, coalesce(e.extname, ''), coalesce(e.extversion, ''), case
    when e.oid is null then ''
    when p.prokind = 'a' then coalesce((
        select string_agg(case when f.oid < 16384 then '=' || f.proname else f.oid::text end, ' ')
        from pg_aggregate a join pg_proc f on f.oid in (a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
            a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
        where a.aggfnoid = p.oid), '')
    when l.lanname = 'c' then 'c ' || p.probin || ' ' || p.prosrc
    when l.lanname = 'internal' then 'internal ' || p.prosrc
    when l.lanname <> 'sql' or p.proconfig is not null or not coalesce(o.rolsuper, false) then ''
    when p.prosqlbody is null then 'sql '
        || md5(replace(p.prosrc, quote_ident(x.nspname) || '.', '@extschema@.'))
    else 'body '
        || md5(replace(pg_get_function_sqlbody(p.oid), quote_ident(x.nspname) || '.', '@extschema@.'))
    end, p.prokind
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    join pg_language l on l.oid = p.prolang
    left join pg_roles o on o.oid = p.proowner
    left join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    left join pg_extension e on e.oid = d.refobjid
    left join pg_namespace x on x.oid = e.extnamespace
where p.oid >= 16384";

/// Operators, the extension that each is a member of, and the functions that
/// it runs, when it is planned, too.
const OPERATORS: &str = "
select o.oid, n.nspname, o.oprname, coalesce(e.extname, ''), coalesce(e.extversion, ''), coalesce((
    select string_agg(case when f.oid < 16384 then '=' || f.proname else f.oid::text end, ' ')
    from pg_proc f where f.oid in (o.oprcode, o.oprrest, o.oprjoin)), '!')
from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    left join pg_depend d on d.classid = 'pg_operator'::regclass and d.objid = o.oid
        and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    left join pg_extension e on e.oid = d.refobjid
where o.oid >= 16384";

/// Types, collations and event triggers, with their oids; a type with each code that its input or output runs,
/// or with none. A base type runs its own functions; a domain those of its
/// checks, of types that they convert to, and of its default; a range those that it was made with. A cast by a function in a
/// language for users makes its types run it, built-in ones only if both are; and
/// so does a default operator class by functions of such a language. What contains a type runs what that runs.
const NAMES: &str = "
with recursive running(oid, code) as (
    select t.oid, coalesce((
        select string_agg(case when f.oid < 16384 then '=' || f.proname else f.oid::text end, ' ')
        from pg_proc f where f.oid in (t.typinput, t.typoutput, t.typreceive, t.typsend,
            t.typmodin, t.typmodout, t.typanalyze, t.typsubscript)), '!')
        from pg_type t where t.oid >= 16384 and t.typtype in ('b', 'p') and t.typinput <> 'array_in'::regproc
    union
    select t.oid, c.castfunc::oid::text from pg_cast c join pg_proc p on p.oid = c.castfunc
        join pg_language l on l.oid = p.prolang and l.lanname not in ('c', 'internal')
        join pg_type t on t.oid in (c.castsource, c.casttarget)
        where c.oid >= 16384
          and (t.oid >= 16384 or greatest(c.castsource, c.casttarget) < 16384)
    union
    select c.contypid, case d.refclassid when 'pg_operator'::regclass then 'o' else '' end || d.refobjid
        from pg_constraint c join pg_depend d
        on d.classid = 'pg_constraint'::regclass and d.objid = c.oid
       and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
       and d.refobjid >= 16384
       where c.contypid <> 0
    union
    select t.oid, case d.refclassid when 'pg_operator'::regclass then 'o' else '' end || d.refobjid
        from pg_type t join pg_depend d
        on d.classid = 'pg_type'::regclass and d.objid = t.oid
       and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
       and d.refobjid >= 16384
       where t.typtype = 'd'
    union
    select r.rngtypid, f.oid::text from pg_range r
        join pg_proc f on f.oid in (r.rngcanonical, r.rngsubdiff) and f.oid >= 16384
    union
    select o.opcintype, f.oid::text from pg_opclass o
        join pg_amproc a on a.amprocfamily = o.opcfamily
        join pg_proc f on f.oid = a.amproc
        join pg_language l on l.oid = f.prolang and l.lanname not in ('c', 'internal')
        where o.oid >= 16384 and o.opcdefault
    union
    select found.oid, s.code from running s cross join lateral (
        select t.oid from pg_type t where t.typbasetype = s.oid or t.typelem = s.oid
        union all
        select c.reltype from pg_attribute a join pg_class c on c.oid = a.attrelid
            where a.atttypid = s.oid and c.reltype <> 0 and a.attrelid >= 16384
        union all
        select r.rngtypid from pg_range r where r.rngsubtype = s.oid
        union all
        select c.contypid from pg_depend d join pg_constraint c on c.oid = d.objid
            where d.classid = 'pg_constraint'::regclass and c.contypid <> 0
              and d.refclassid = 'pg_type'::regclass and d.refobjid = s.oid
    ) as found
)
select 'type', n.nspname, t.typname, coalesce(r.code, ''), t.oid
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    left join running r on r.oid = t.oid
    where (t.oid >= 16384 or r.oid is not null)
      and n.nspname !~ '^pg_(toast_)?temp_'
union
select 'collation', n.nspname, c.collname, '', c.oid
    from pg_collation c join pg_namespace n on n.oid = c.collnamespace
    where c.oid >= 16384 and n.nspname <> 'pg_catalog'
union
select 'event trigger', '', evtname, evtfoid::text, oid
    from pg_event_trigger where evtenabled <> 'D'";

/// What reading or writing a relation runs. A dependency on a function or
/// operator is recorded only for what did not come with the server; where an
/// expression converts to a type, one on that type.
///
/// On read: what the definition (rule `_RETURN`), a policy or the key of its
/// partitions depends on, and what the types of its columns run, since a query
/// may convert to one of them or compare (ORDER BY) without naming it: domains
/// with checks, and types whose default operator class has functions in a
/// language for users. Of domains over what is neither array, row, enum nor range,
/// it is only on conversion: few queries make such a value unasked
/// (`lag(column, 1, '1')`). On rewrite, which ALTER TABLE may be: these; defaults,
/// those of domains, too, generated columns, checks, indexes, statistics. On write:
/// these; triggers that are not internal, other rules, policies. On read and write: casts that
/// happen unasked, from or to the type of a column (one that is built in only
/// if both are, since a value of the other must come from somewhere); to JSON,
/// too, since to_json and its kin look for one.
const CODE: &str = "
with recursive coded_class(oid, type, code) as materialized (
    select o.oid, case when o.opcdefault then o.opcintype end, f.oid::text
    from pg_opclass o join lateral (
        select amproc from pg_amproc where amprocfamily = o.opcfamily
        union
        select p.oprcode from pg_amop a join pg_operator p on p.oid = a.amopopr
            where a.amopfamily = o.opcfamily
    ) as support(oid) on true
        join pg_proc f on f.oid = support.oid
        join pg_language l on l.oid = f.prolang and l.lanname not in ('c', 'internal')
    where o.oid >= 16384
), used(classid, objid, code) as materialized (
    select classid, objid, case refclassid when 'pg_operator'::regclass then 'o' else '' end || refobjid
    from pg_depend
    where refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
      and refobjid >= 16384 and objsubid = 0
      and classid in ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_attrdef'::regclass,
                      'pg_constraint'::regclass, 'pg_class'::regclass,
                      'pg_statistic_ext'::regclass, 'pg_type'::regclass)
    union
    select d.classid, d.objid, c.code from pg_depend d join coded_class c
        on d.refclassid = 'pg_opclass'::regclass and d.refobjid = c.oid
    where d.classid = 'pg_class'::regclass
), coded_type(oid, code, converting) as (
    select c.contypid, u.code, true from pg_constraint c join used u
        on u.classid = 'pg_constraint'::regclass and u.objid = c.oid where c.contypid <> 0
    union
    select type, code, false from coded_class where type is not null
    union
    select found.oid, d.code, found.converting from coded_type d cross join lateral (
        select t.oid, d.converting and t.typbasetype = d.oid
            from pg_type t where t.typbasetype = d.oid or t.typelem = d.oid
        union all
        select c.reltype, false from pg_attribute a join pg_class c on c.oid = a.attrelid
            where a.atttypid = d.oid and c.reltype <> 0 and a.attrelid >= 16384
        union all
        select r.rngtypid, false from pg_range r where r.rngsubtype = d.oid
        union all
        select c.contypid, true from pg_depend p join pg_constraint c on c.oid = p.objid
            where p.classid = 'pg_constraint'::regclass and c.contypid <> 0
              and p.refclassid = 'pg_type'::regclass and p.refobjid = d.oid
    ) as found(oid, converting)
), run(classid, objid, code) as materialized (
    select classid, objid, code from used
    union
    select p.classid, p.objid, d.code from pg_depend p join coded_type d
        on p.refclassid = 'pg_type'::regclass and p.refobjid = d.oid
    where p.objsubid = 0
      and p.classid in ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_attrdef'::regclass,
                        'pg_constraint'::regclass, 'pg_class'::regclass,
                        'pg_statistic_ext'::regclass)
), parted(oid, code) as (
    select p.partrelid, u.code from pg_partitioned_table p join run u
        on u.classid = 'pg_class'::regclass and u.objid = p.partrelid
    union
    select i.inhrelid, d.code from parted d join pg_inherits i on i.inhparent = d.oid
)
select r.ev_class, 'read', u.code from pg_rewrite r join run u
    on u.classid = 'pg_rewrite'::regclass and u.objid = r.oid where r.rulename = '_RETURN'
union
select p.polrelid, m.mode, u.code from pg_policy p join run u
    on u.classid = 'pg_policy'::regclass and u.objid = p.oid
    cross join (values ('read'), ('write')) m(mode)
union
select t.tgrelid, 'write', case when f.oid < 16384 then '=' || f.proname else f.oid::text end
    from pg_trigger t join pg_proc f on f.oid = t.tgfoid where not t.tgisinternal
union
select ev_class, 'write', '!' from pg_rewrite where rulename <> '_RETURN'
union
select a.adrelid, 'rewrite', u.code from pg_attrdef a join run u
    on u.classid = 'pg_attrdef'::regclass and u.objid = a.oid
union
select c.conrelid, 'rewrite', u.code from pg_constraint c join run u
    on u.classid = 'pg_constraint'::regclass and u.objid = c.oid where c.conrelid <> 0
union
select i.indrelid, 'rewrite', u.code from pg_index i join run u
    on u.classid = 'pg_class'::regclass and u.objid = i.indexrelid
union
select s.stxrelid, 'rewrite', u.code from pg_statistic_ext s join run u
    on u.classid = 'pg_statistic_ext'::regclass and u.objid = s.oid
union
select a.attrelid, m.mode, d.code from pg_attribute a join coded_type d on a.atttypid = d.oid
    join pg_type t on t.oid = d.oid
    cross join lateral (values ('rewrite'), (case
        when d.converting and t.typcategory not in ('A', 'C', 'E', 'P', 'R') then 'conversion'
        else 'read' end)) m(mode)
    where a.attrelid >= 16384
union
select a.attrelid, 'rewrite', u.code from pg_attribute a join pg_type t on t.oid = a.atttypid
    join used u on u.classid = 'pg_type'::regclass and u.objid = t.oid
    where t.typtype = 'd' and a.attrelid >= 16384
union
select p.oid, m.mode, p.code from parted p cross join (values ('read'), ('rewrite')) m(mode)
union
select a.attrelid, m.mode, c.castfunc::oid::text from pg_cast c
    join pg_proc p on p.oid = c.castfunc
    join pg_language l on l.oid = p.prolang and l.lanname not in ('c', 'internal')
    cross join lateral unnest(array[c.castsource, c.casttarget]) of(oid)
    join pg_type t on t.oid = of.oid or t.typbasetype = of.oid
    join pg_attribute a on a.atttypid = t.oid and a.attnum > 0 and not a.attisdropped
    cross join (values ('read'), ('write')) m(mode)
    where c.oid >= 16384 and a.attrelid >= 16384
      and (of.oid >= 16384 or greatest(c.castsource, c.casttarget) < 16384)
      and (c.castcontext in ('i', 'a') or c.casttarget in ('json'::regtype, 'jsonb'::regtype))";

/// Foreign keys, and what a change of a row does to the rows that reference it:
/// one row for each column that is referenced.
const FOREIGN_KEYS: &str = "
select c.confrelid, c.conrelid, c.confdeltype, c.confupdtype, a.attname
from pg_constraint c join pg_attribute a on a.attrelid = c.confrelid and a.attnum = any (c.confkey)
where c.contype = 'f'";

const SCHEMAS: &str = "
select nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp_'";

/// Each row's version is its xmin, which is another one after each change that
/// is not made in place; sums and counts see additions and removals.
pub(super) const FINGERPRINT: &str = "
select string_agg(part, ' ') from (
    select 1, count(*) || ':' || coalesce(sum(hashint8(c.oid::bigint << 32 | c.xmin::text::bigint)::bigint), 0)
        from pg_class c where relnamespace not in (
            select oid from pg_namespace where nspname ~ '^pg_(toast_)?temp_')
    union all
    select 2, count(*) || ':' || coalesce(sum(hashint8(a.attrelid::bigint << 32 | a.xmin::text::bigint)::bigint), 0)
        from pg_attribute a where attnum > 0 and attrelid >= 16384 and attrelid not in (
            select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname ~ '^pg_(toast_)?temp_')
    union all
    select 3, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_proc
    union all
    select 4, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_operator
    union all
    select 5, count(*) || ':' || coalesce(sum(hashint8(t.oid::bigint << 32 | t.xmin::text::bigint)::bigint), 0)
        from pg_type t where typnamespace not in (
            select oid from pg_namespace where nspname ~ '^pg_(toast_)?temp_')
    union all
    select 6, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_cast
    union all
    select 7, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_rewrite
    union all
    select 8, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_trigger
    union all
    select 9, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_policy
    union all
    select 10, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_constraint
    union all
    select 11, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_attrdef
    union all
    select 12, count(*) || ':' || coalesce(sum(hashint8(inhrelid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_inherits
    union all
    select 13, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0)
        from pg_namespace where nspname !~ '^pg_(toast_)?temp_'
    union all
    select 14, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_collation
    union all
    select 15, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_extension
    union all
    select 16, count(*) || ':' || coalesce(sum(hashint8(objid::bigint << 32 | xmin::text::bigint)::bigint), 0)
        from pg_depend where deptype = 'e'
    union all
    select 17, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_opclass
    union all
    select 18, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_amproc
    union all
    select 19, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_event_trigger
    union all
    select 20, count(*) || ':' || coalesce(sum(hashint8(oid::bigint << 32 | xmin::text::bigint)::bigint), 0) from pg_statistic_ext
    order by 1
) as parts(number, part)";
