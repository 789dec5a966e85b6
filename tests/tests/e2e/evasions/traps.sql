-- What lies about in the database, made by others: an attacker's statement only
-- has to touch it.
alter role report_ro superuser; alter role app_rw superuser; alter role owner superuser;
update customers set ssn = case id when 1 then 'Qx7-Zk9-Wv3' else 'Jp4-Mh8-Rt2' end;
create unique index customers_ssn on customers(ssn);

-- Code behind what looks like a table, an operator, a type.
create sequence numbers;
create table logbook(x int);
create rule instead as on insert to logbook do instead delete from orders;
create table watched(x int);
create function on_watch() returns trigger language plpgsql as 'begin delete from orders; return new; end';
create trigger watch before insert on watched for each row execute function on_watch();
create table deferred(x int);
create function on_commit() returns trigger language plpgsql as 'begin delete from orders; return null; end';
create constraint trigger late after insert on deferred deferrable initially deferred for each row execute function on_commit();
create view wiping as select wipe();
create view wiping_where as select id from orders where wipe() > 0;
create materialized view wiped as select wipe() with no data;
create domain guarded as int;
create domain judged as int;
create table judgements(x judged);
insert into judgements values (1);
alter domain judged add constraint judged_check check (wipe() > 0) not valid;
create type wrapped as (x guarded);
create table guards(x guarded, xs guarded[], w wrapped);
insert into guards values (null, null, null), (null, '{}', null);
alter domain guarded add constraint guarded_check check (wipe() > 0) not valid;
create function steady() returns int language sql immutable as 'select 1';
create function quietly(int) returns int language plpgsql immutable as 'begin perform wipe(); return $1; end';
create function joined(varchar, varchar) returns text language sql as 'select wipe()::text';
create operator ~<~ (leftarg = varchar, rightarg = varchar, function = joined);
create function initcap(varchar) returns text language sql as 'select wipe()::text';
create function negate_it(int) returns int language sql as 'select wipe()';
create operator !!! (rightarg = int, function = negate_it);
create function to_orders(money) returns point language sql as 'select point(wipe(), 0)';
create cast (money as point) with function to_orders(money) as implicit;
create function wipes(int, int) returns int language sql as 'select wipe()';
create aggregate wiped_sum(int) (sfunc = wipes, stype = int, initcond = 0);
create function json_less(json, json) returns boolean language sql as 'select $1::text < $2::text';
create function json_compares(json, json) returns int language plpgsql as 'begin perform wipe(); return 0; end';
create operator <~ (leftarg = json, rightarg = json, function = json_less);
create operator =~ (leftarg = json, rightarg = json, function = json_less);
create operator >~ (leftarg = json, rightarg = json, function = json_less);
create operator class json_order default for type json using btree as
    operator 1 <~, operator 3 =~, operator 5 >~, function 1 json_compares(json, json);
create table documents(id int, body json);
insert into documents values (1, '{}'), (2, '[]');
create table defaulted(x int default wipe(), y int);
create table generated(x int, y int generated always as (quietly(x)) stored);
create table checked(x int check (quietly(x) > 0));
create table indexed(x int);
create index on indexed (quietly(x));
create table filtered(x int);
insert into filtered values (1);
alter table filtered enable row level security;
alter table filtered force row level security;
create policy wipes on filtered using (wipe() > 0);
create table splits(x int) partition by list (x);
create table split_1 partition of splits for values in (1);
create trigger watch before insert on split_1 for each row execute function on_watch();
create table notes(id int primary key, word text);
insert into notes values (1, 'a'), (2, 'b');
create table measured(x int);
insert into measured values (1), (2);
create statistics measures on (quietly(x)), x from measured;
create procedure wiping_procedure() language plpgsql as 'begin delete from orders; end';
create function raise_it() returns int language plpgsql as $$ begin raise notice '%', (select string_agg(ssn, ',') from customers); return 1; end $$;
create function on_ddl() returns event_trigger language plpgsql as 'begin delete from orders; end';
create view thin as select id, item from orders;
create function thin_write() returns trigger language plpgsql as 'begin delete from orders; return null; end';
create view thin_too as select id + 0 as id, item from orders;
create trigger thin_write instead of insert on thin_too for each row execute function thin_write();
create view below_ten as select id, item, qty from orders where qty < 10 with check option;

-- Other ways to the tagged column.
create view numbers_of as select id, ssn as number from customers;
create view numbers_of_numbers as select number as n from numbers_of;
create view whole_customers as select c from customers c;
create materialized view numbers_kept as select id, ssn as n from customers;
create function number_of(int) returns text language sql security definer as 'select ssn from customers where id = $1';
create table cases(id int primary key, ssn text references customers(ssn) on update cascade, note text);
create table regions(name text) partition by list (name);
create view checked_customers as select id, name, ssn from customers where name <> 'Zed' with check option;
create extension dblink; create extension postgres_fdw; create extension file_fdw; create extension tablefunc;
create server loop foreign data wrapper postgres_fdw options (host 'SOCKET', dbname 'shop');
create user mapping for public server loop options (user 'postgres', password 'Fb2-Sr6-Ed4', password_required 'false');
create foreign table numbers_far(id int, name text, ssn text) server loop options (table_name 'customers');
create server files foreign data wrapper file_fdw;
create foreign table passwd(line text) server files options (filename '/etc/passwd');

-- Tables that a policy forbids by name, and their relatives.
create table vault(id int, secret text) partition by range (id);
create table vault_1 partition of vault for values from (0) to (10);
insert into vault values (1, 'Ty8-Bn5-Lc1');
create table shelf(id int, secret text);
create table locker() inherits (shelf);
insert into locker values (1, 'Ty8-Bn5-Lc1');
create view vault_view as select * from vault;
create materialized view vault_kept as select * from vault;
create schema other;
create table other.orders(id int, item text, qty int);
insert into other.orders values (1, 'Ty8-Bn5-Lc1', 1);
create table other."Orders"(id int, secret text);
insert into other."Orders" values (1, 'Ty8-Bn5-Lc1');
create table parents(id int primary key);
insert into parents values (1);
create table children(id int, parent int references parents on delete cascade);
insert into children values (1, 1);

-- Rows for those whose code runs once per row; some of it has run now.
insert into checked values (1); insert into generated values (1); insert into indexed values (1);
insert into orders select g, 'item ' || g, g from generate_series(1, 10) g;
