//! The SQL that reads a catalogue. It must run on PostgreSQL 14 to 18, as a
//! role without rights of its own. 16384 is FirstNormalObjectId: what has a
//! smaller oid came with the server.

/// In the order that [`super::Catalogue::from_rows`] expects.
pub(super) const ALL: &[&str] = &[RELATIONS, COLUMNS, DEPENDENCIES, PARENTS, NAMES, SCHEMAS];

/// A dependency on a function, operator or type is recorded only for what did
/// not come with the server. Temporary schemas are those named pg_temp_N and
/// pg_toast_temp_N.
///
/// On read: the definition (rule `_RETURN`) or a policy depends on such code.
/// On write: a trigger that is not internal, any other rule, a policy; a
/// default, generated column, check or index that depends on such code; a
/// column whose domain has a check that does. A partition's count for its
/// parents, because a write to the parent reaches it.
const RELATIONS: &str = "
with recursive user_code as materialized (
    select classid, objid from pg_depend
    where refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
      and refobjid >= 16384
      and classid in ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_attrdef'::regclass,
                      'pg_constraint'::regclass, 'pg_class'::regclass)
), reading(oid) as (
    select r.ev_class from pg_rewrite r join user_code u
        on u.classid = 'pg_rewrite'::regclass and u.objid = r.oid where r.rulename = '_RETURN'
    union
    select p.polrelid from pg_policy p join user_code u
        on u.classid = 'pg_policy'::regclass and u.objid = p.oid
), coded_domain(oid) as (
    select c.contypid from pg_constraint c join user_code u
        on u.classid = 'pg_constraint'::regclass and u.objid = c.oid where c.contypid <> 0
    union
    select t.oid from pg_type t join coded_domain d on t.typbasetype = d.oid or t.typelem = d.oid
), own_writing(oid) as (
    select tgrelid from pg_trigger where not tgisinternal
    union
    select ev_class from pg_rewrite where rulename <> '_RETURN'
    union
    select p.polrelid from pg_policy p join user_code u
        on u.classid = 'pg_policy'::regclass and u.objid = p.oid
    union
    select a.adrelid from pg_attrdef a join user_code u
        on u.classid = 'pg_attrdef'::regclass and u.objid = a.oid
    union
    select c.conrelid from pg_constraint c join user_code u
        on u.classid = 'pg_constraint'::regclass and u.objid = c.oid where c.conrelid <> 0
    union
    select i.indrelid from pg_index i join user_code u
        on u.classid = 'pg_class'::regclass and u.objid = i.indexrelid
    union
    select a.attrelid from pg_attribute a join coded_domain d on a.atttypid = d.oid
), writing(oid) as (
    select oid from own_writing
    union
    select i.inhparent from pg_inherits i join writing w on i.inhrelid = w.oid
)
select c.oid, n.nspname, c.relname, c.relkind,
       c.oid in (select oid from reading), c.oid in (select oid from writing)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_(toast_)?temp_'
order by c.oid";

/// System columns have negative numbers and are left out: every relation has
/// the same ones.
const COLUMNS: &str = "
select a.attrelid, a.attnum, a.attname, a.attgenerated <> ''
from pg_attribute a join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
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

/// A type is harmless when converting text to it runs only PostgreSQL's own
/// code: enums, ranges over and domains without checks of users' code,
/// composites. Base types are never: their input functions came with an
/// extension. A cast that runs somebody's function makes its types
/// suspect, built-in ones only if both are; and so is what contains one.
const NAMES: &str = "
with recursive suspect(oid) as (
    select oid from pg_type where oid >= 16384 and typtype in ('b', 'p') and typelem = 0
    union
    select t.oid from pg_cast c join pg_proc p on p.oid = c.castfunc
        join pg_language l on l.oid = p.prolang and l.lanname not in ('c', 'internal')
        join pg_type t on t.oid in (c.castsource, c.casttarget)
        where c.oid >= 16384
          and (t.oid >= 16384 or greatest(c.castsource, c.casttarget) < 16384)
    union
    select c.contypid from pg_constraint c join pg_depend d
        on d.classid = 'pg_constraint'::regclass and d.objid = c.oid
       and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
       and d.refobjid >= 16384
       where c.contypid <> 0
    union
    select distinct found.oid from suspect s cross join lateral (
        select t.oid from pg_type t where t.typbasetype = s.oid or t.typelem = s.oid
        union all
        select c.reltype from pg_attribute a join pg_class c on c.oid = a.attrelid
            where a.atttypid = s.oid and c.reltype <> 0 and a.attrelid >= 16384
        union all
        select r.rngtypid from pg_range r where r.rngsubtype = s.oid
    ) as found
)
select distinct 'function', n.nspname, p.proname
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid >= 16384
union
select distinct 'operator', n.nspname, o.oprname
    from pg_operator o join pg_namespace n on n.oid = o.oprnamespace where o.oid >= 16384
union
select distinct case when t.oid in (select oid from suspect) then 'type' else 'harmless type' end,
        n.nspname, t.typname
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where (t.oid >= 16384 or t.oid in (select oid from suspect))
      and n.nspname !~ '^pg_(toast_)?temp_'
union
select distinct 'collation', n.nspname, c.collname
    from pg_collation c join pg_namespace n on n.oid = c.collnamespace
    where c.oid >= 16384 and n.nspname <> 'pg_catalog'";

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
    order by 1
) as parts(number, part)";
