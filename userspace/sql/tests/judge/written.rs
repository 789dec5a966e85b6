//! Statements written by hand, one a line: each rule, and what tries to slip
//! by it. All are valid.

pub const STATEMENTS: &str = r#"
-- Columns as they are.
select ssn from customers
select id, ssn from customers
select c.ssn as x from customers c
select customers.ssn from customers
select public.customers.ssn from customers
select judge.public.customers.ssn from public.customers
select "ssn" from "customers"
select * from customers
select c.*, c.ssn from customers c
select ssn, ssn from customers
table customers
select x from customers as c (a, b, x)
select a, ssn from customers as c (a)
select c.* from customers as c (a, b, x)
select id from customers
select name from customers c
select count(*) from customers
select 1 from customers
select ctid from customers
select ctid, ssn from customers
select o.*, c.* from orders o, customers c
select * from orders o, customers c
select * from customers c join orders o on o.customer_id = c.id
select c.*, o.note from customers c left join orders o on o.customer_id = c.id
select * from customers cross join staff
select * from ((customers c join staff s on c.id = s.id) join orders o on o.id = c.id)
select * from (customers c join staff s on c.id = s.id) as j (a, b, c, d, e, f)
select c from (customers c join staff s on c.id = s.id) as j (a, b, c, d, e, f)
select j.e from (customers c join staff s on c.id = s.id) as j (a, b, c, d, e, f)
select note, c.ssn from orders o, customers c where o.customer_id = c.id
select ssn from customers tablesample system (100)
select ssn from only people
select ssn from people
select ssn from managers
select * from managers
select extra from managers
select iban from accounts
select iban from accounts_1
select iban from accounts_2
select * from accounts
select owner from accounts
select twice, ssn from computed
select * from computed
values ('1', '2')
values ((select max(ssn) from customers))
select 1 where false

-- Queries in FROM.
select * from (select id, ssn from customers) q
select x from (select ssn as x from customers) q
select q.x from (select ssn from customers) q (x)
select id from (select ssn as id from customers) q
select id from (select id, ssn from customers) q
select * from (select * from (select * from customers) a) b
select b.* from (select a.* from (select c.* from customers c) a) b
select name from (select upper(ssn) as name from customers) q
select l from (select lower(ssn) as l, ssn from customers) q
select ssn from (select name as ssn from customers) q
select ssn from customers, (select name as x from customers) q
select q.ssn from (select ssn from customers union all select note from orders) q
select v from (values ('1'), ('2')) as q (v)
select column1 from (values ('1'), ('2')) q
select count(*) from (select distinct id, ssn from customers) q
select ssn from (table customers) q
select x.ssn from (select 'a' as y) q, customers x
select * from (select ssn from customers order by ssn limit 1) q
select q.id from (select id, row_number() over (order by ssn) from customers) q

-- LATERAL.
select l.x from customers c, lateral (select c.ssn as x) l
select c.id, l.x from customers c cross join lateral (select c.ssn as x from orders) l
select l.ssn from customers c, lateral (select ssn from staff where staff.id = c.id) l
select l.x from customers c, lateral (select ssn as x from orders) l
select l.x from staff s, lateral (select note as x from orders where orders.id = s.id) l
select f from customers c, unnest(array[c.ssn]) f
select f from customers c, lateral unnest(string_to_array(c.ssn, '-')) f
select c.id, f from customers c, unnest(array[c.id]) f
select c.ssn, g from customers c, generate_series(1, 2) g
select ssn, g from customers, generate_series(1, 2) as g
select c.* from generate_series(1, 2) g, customers c
select l.v from customers c, lateral (values (c.ssn)) l (v)
select x from customers c left join lateral (select c.ssn as x) l on true
select i.x from staff s, (select ssn as x from customers where exists (select 1 from orders)) i

-- WITH.
with w as (select ssn from customers) select * from w
with w (x) as (select ssn from customers) select x from w
with w as (select * from customers) select id from w
with w as (select * from customers) select 1 from w
with w as (select ssn from customers) select 1
with customers as (select * from customers) select * from customers
with customers as (select id, name from customers) select * from customers
with customers as (select note as ssn from orders) select ssn from customers
with customers as (select note as ssn from orders) select ssn from public.customers
with a as (select ssn as x from customers), b as (select x as y from a) select y from b
with a as (select id from orders), b as (with a as (select ssn as id from customers) select id from a) select b.id from a, b
with w as (select upper(ssn) as x from customers) select x from w
with w as materialized (select ssn from customers) select w.ssn from w join staff s on s.ssn = w.ssn
with recursive w (x) as (select ssn from customers union select x from w) select x from w
with recursive w (x, y) as (select id, name from customers union all select y, 'z' from w where x <> y and y <> 'z') select x from w
with recursive w (x, y) as (select 'a', ssn from customers union select y, 'b' from w) select x, y from w
with recursive w (x, n) as (select id, 1 from customers union all select ssn, n + 1 from customers, w where n < 2 and customers.id = w.x) select x from w
with recursive a as (select ssn as x from customers), b as (select x from a) select * from b
with recursive a as (select x from b), b as (select ssn as x from customers) select * from a
with recursive t as (select id, ssn from staff where boss is null union all select s.id, s.ssn from staff s join t on s.boss = t.id) select * from t
with w as (select 1 as one) select ssn from customers, w
select * from (with w as (select ssn from customers) select * from w) q
select (with w as (select ssn from customers) select count(*) from w)
with w as (select ssn from customers) select (select max(ssn) from w)
with w as (select id from customers) select exists (select from w)
with recursive w (id, ssn) as (select id, ssn from customers union all select id, id from w where false) select ssn from w
with w as (insert into orders (id) values ('5') returning id) select ssn, w.id from customers, w
with w as (delete from customers returning ssn) select ssn from w

-- UNION and its kin.
select ssn from customers union all select ssn from staff
select ssn from customers union all select note from orders
select note from orders union all select ssn from customers
select ssn from customers union select ssn from staff
select id from customers union select note from orders
select ssn from customers intersect select ssn from staff
select ssn from customers except select 'secret-c1'
select 'secret-c1' except select ssn from customers
select 'x' union all select ssn from customers
select upper(ssn) from customers union all select ssn from staff
select ssn from customers union all select upper(ssn) from staff
(select ssn from customers) union all (select id from orders order by note) order by 1
select ssn as a from customers union all select note from orders order by a
select id, ssn from customers union all select ssn, id from staff
(select ssn from customers order by id limit 1) union all select 'x'
select * from customers union all select id, ssn, boss from staff
select ssn from customers union all (select ssn from staff union select note from orders)
table customers union all table customers

-- Joins that merge columns.
select ssn from customers join staff using (ssn)
select id from customers join staff using (ssn, id)
select customers.ssn from customers join staff using (ssn)
select id from customers join orders using (id)
select ssn from customers join orders using (id)
select * from customers join orders using (id)
select * from customers join staff using (id)
select * from customers join staff using (ssn)
select * from customers natural join staff
select boss from customers natural join staff
select * from customers natural join orders
select note, customers.ssn from customers natural join orders
select * from (customers join orders using (id)) as j
select * from (customers join orders using (id)) as j (a, b, c)
select j.c from (customers join orders using (id)) as j (a, b, c)
select c.* from customers c join orders o using (id)
select o.*, c.ssn from customers c join orders o using (id)
select s.ssn from customers c full join staff s using (id)
select * from customers c full join staff s using (ssn)
select * from orders o join customers c using (id) join staff s using (id)
select c.ssn from (orders o join customers c using (id)) join staff s on s.ssn = c.ssn
select id from customers join staff using (id) as u
select u.* from customers join staff using (ssn) as u

-- Compared.
select id from customers where ssn = 'secret-c1'
select id from customers where ssn like 'secret%' and name is not null
select id from customers where ssn is null
select id from customers where ssn in ('a', 'b')
select id from customers where ssn between 'a' and 'z'
select id from customers where lower(ssn) = 'x'
select id from customers where ssn::varchar(3) = 'sec'
select id from customers where substr(ssn, 1, 2) = 'se' or left(ssn, 1) = 's'
select id from customers where ssn collate "C" > 'a'
select id from customers where case when ssn = 'a' then true else false end
select id from customers where coalesce(ssn, 'x') = nullif(ssn, 'y')
select id from customers where (id, ssn) = ('1', 'x')
select id from customers where ssn = any (array['a', ssn])
select id from customers where ssn ~ '^s' and not ssn similar to 'q%'
select id from customers where ssn || name = 'x'
select id from customers where md5(ssn) = 'x'
select id from customers where length(ssn) > 3
select id from customers where repeat(ssn, 2) = 'x'
select id from customers where pg_sleep(0) is null or ssn = 'x'
select ssn from customers where ssn = 'secret-c1'
select id from customers order by ssn
select id from customers order by lower(ssn), ssn desc nulls last
select id, ssn from customers order by 2
select id, ssn from customers order by 1
select id, ssn as x from customers order by x
select id, name as ssn from customers order by ssn
select ssn as id, id as x from customers order by id
select id as x from customers order by x, customers.ssn
select id, ssn from customers order by ssn using <
select name from customers group by name, ssn
select ssn from customers group by ssn
select ssn, count(*) from customers group by 1
select name as ssn, count(*) from customers group by 1
select count(*) from customers group by ssn
select count(*) from customers group by lower(ssn)
select name as ssn from customers group by ssn, name
select ssn from customers group by rollup (ssn)
select ssn from customers group by grouping sets ((ssn), ())
select id, ssn from customers group by (id, ssn)
select name from customers group by name having max(ssn) > 'a'
select name from customers group by name having count(ssn) > 0
select ssn from customers group by ssn having ssn like 'secret%'
select distinct ssn from customers
select distinct id, name from customers
select distinct on (ssn) id from customers
select distinct on (id) id, ssn from customers
select distinct on (1) ssn, id from customers
select distinct on (x) ssn as x, id from customers order by x
select o.note from orders o join customers c on c.ssn = o.note
select o.note from orders o join customers c on c.id = o.customer_id and c.ssn is not null
select c.ssn, s.ssn from customers c join staff s on s.ssn <> c.ssn
select id from customers c where exists (select from staff s where s.ssn = c.ssn)
select id from customers c where exists (select s.ssn from staff s where s.id = c.id)
select id from customers c where exists (select * from staff s where s.id = c.id)
select id from customers c where id in (select id from staff where ssn is not null)
select id from customers c where ssn in (select ssn from staff)
select id from orders where note = (select ssn from customers limit 1)
select id from customers where ssn = (select max(note) from orders)
select id from customers where not exists (select 1 from orders where note = ssn)
select (select count(*) from staff where ssn = 'secret-s1') from orders
select (select note from orders o where o.customer_id = c.id and c.ssn is not null limit 1) from customers c
select exists (select ssn from customers)
select id from customers where ssn = 'x' for update
select ssn from customers for update
select c.ssn from customers c, orders o for share of o

-- Seen.
select ssn || '' from customers
select ssn::varchar from customers
select ssn collate "C" from customers
select upper(ssn), id from customers
select (ssn) from customers
select coalesce(ssn, 'x') from customers
select ssn = 'x' from customers
select ssn is null from customers
select case when ssn = 'a' then 1 end from customers
select length(ssn) from customers
select max(ssn) from customers
select count(ssn) from customers
select string_agg(ssn, ',') from customers
select array_agg(ssn) from customers
select array[ssn] from customers
select count(*) filter (where ssn is not null) from customers
select string_agg(name, ',' order by ssn) from customers
select row(ssn) from customers
select row(c.*) from customers c
select c from customers c
select customers from customers
select c::text from customers c
select (c).ssn from customers c
select (c).id from customers c
select (c).* from customers c
select c.ssn, c from customers c
select row_to_json(c) from customers c
select to_jsonb(c) - 'ssn' from customers c
select count(c) from customers c
select count(distinct c.*) from customers c
select id from customers c where c is not null
select id from customers c where c::text like '%x%'
select id from customers c order by c
select q.q from (select c as q from customers c) q
select (q.q).ssn from (select c as q from customers c) q
select json_agg(q) from (select id, ssn from customers) q
select json_agg(w) from orders o, lateral (select ssn from customers) w
select first_value(ssn) over (order by id) from customers
select row_number() over (order by ssn) from customers
select row_number() over (partition by ssn) from customers
select row_number() over w from customers window w as (order by ssn)
select id, rank() over w from customers window w as (partition by name)
select id from customers order by row_number() over (order by ssn)
select (select ssn from customers limit 1)
select (select max(ssn) from customers), note from orders
select array(select ssn from customers)
select (select c.ssn) from customers c
select (select c.ssn || o.note from orders o limit 1) from customers c
select 'a' = any (select ssn from customers)
select id in (select ssn from staff) from customers
select id from customers order by (select max(ssn) from staff)
select id from orders limit (select length(min(ssn)) from customers)
select id from orders offset (select count(*) from customers where ssn is null)
select greatest(ssn, 'a'), least(ssn, name) from customers
select position('s' in ssn), substring(ssn from 2), trim(ssn) from customers
select concat_ws('-', ssn), format('%s', ssn), quote_literal(ssn) from customers
select pg_typeof(ssn) from customers
select grouping(ssn) from customers group by ssn
select unnest(string_to_array(ssn, '-')) from customers
select (string_to_array(ssn, '-'))[1] from customers
select xmlelement(name x, ssn) from customers
select c.row_to_json from customers c
select c.row_to_json, c.ssn from customers c
select (c).*, ssn from customers c
select (q.c).*, q.s from (select c, ssn as s from customers c) q
select l.*, c.ssn from customers c, lateral (values (c.*)) l
select l.*, c.ssn from customers c, lateral (values (c.id, c.name)) l
select ssn from customers where ssn = 'x' and pg_advisory_lock(1) is null
select pg_notify('a', ssn) from customers

-- Views.
select id, note from order_view
select id from customer_view
select x from customer_view
select * from over_view
select 1 from row_view
select c.ssn, v.note from customers c join order_view v using (id)
select v.note from order_view v where exists (select from customers where ssn = v.note)

-- To the client by COPY.
copy (select id, ssn from customers) to stdout
copy (select upper(ssn) from customers) to stdout
copy (select id from customers where ssn is not null order by ssn) to stdout
copy (table customers) to stdout
copy customers to stdout
copy customers (ssn, id) to stdout
copy customers (id) to stdout
copy computed to stdout
copy computed (ssn) to stdout
copy people to stdout
copy managers (extra) to stdout

-- RETURNING.
insert into customers (id, name) values ('7', 'zoe') returning ssn
insert into customers (id) values ('7') returning *
insert into customers (id, ssn) values ('7', 'secret-n1') returning id, ssn
insert into customers values ('7', 'a', 'secret-n1') returning id
insert into orders (id, note) select id, ssn from customers returning note
insert into orders (id, note) select id, name from customers where ssn is not null returning id
update customers set name = 'x' where id = '1' returning ssn, name
update customers set name = 'x' returning *
update customers c set name = 'x' from staff s where s.id = c.id returning c.ssn, s.ssn, s.*
update customers set name = ssn where id = '1' returning name
update customers set name = 'x' where ssn = 'secret-c1' returning id
update orders o set note = 'x' from customers c where c.id = o.customer_id returning c.ssn
update orders o set note = 'x' from (select id, ssn as s from customers) c where c.id = o.id returning s
delete from customers where id = '1' returning *
delete from customers where ssn is null returning id
delete from orders o using customers c where c.id = o.customer_id returning o.note, c.ssn
delete from customers returning upper(ssn)
delete from orders returning (select max(ssn) from customers)
update orders set note = 'x' returning exists (select from customers where ssn = note)

-- Names that mislead.
select id from customers c, lateral (select c.ssn as id2) l
select name from (select id as name, ssn as id from customers) q
select ssn.ssn from customers as ssn
select ssn.id from customers as ssn
select ssn from customers as ssn
select ssn from orders as ssn
select c.c from customers as c (c)
select c from customers as c (c)
select a.id from (select 1 as id) a, (select ssn as id from customers) b
select b.id from (select 1 as id) a, (select ssn as id from customers) b
select (select ssn from orders limit 1) from customers
select (select id from (select note as ssn, id from orders) o where o.ssn = 'x') from customers
select (select o.note from orders o where ssn = o.note limit 1) from customers
select id from orders where note in (select ssn from (select note as ssn from orders) q)
select x.note from orders x where (select ssn from (select name as ssn from customers) q limit 1) is not null
"#;
