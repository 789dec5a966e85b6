\set ON_ERROR_STOP 0
\pset pager off
\d
\d+ people
\d+ sales
\d sale_lines
\d+ measures
\d+ buyers
\d+ totals
\d sales_by_buyer
\d tickets
\dt
\df
\df+ archive.taxed
\du
\du+
\l
\dn
\dn+
\dT
\dT+ mood
\dD
\dp
\ddp
\dx
\dd
\db
\dc
\dC integer
\dO
\do+ ||
\da sum
\dF
\dRp
\dRs
\des
\deu
\dconfig work_mem
\dL
\dy
\dX
\sv buyers
\sf archive.taxed
\encoding
\x
select * from people order by id limit 2;
\x off
\copy (select id, name from people order by id) to stdout
\copy (select id, name from people order by id) to pstdout with (format csv, header)
\copy measures from pstdin with (format csv)
2026-07-01,psql,1
2026-07-02,psql,2
\.
select count(*) from measures where place = 'psql';
copy sale_lines from stdin;
12	50	copied	1
12	51	copied	2
\.
select id, total from sales order by id limit 1 \gset first_
\echo :first_id :first_total
select mood, extract(year from born)::int as year, count(*) from people where born is not null group by 1, 2 order by 1, 2 \crosstabview mood year count
select 'select ' || g from generate_series(1, 3) g \gexec
select name, mood from people limit 0 \gdesc
select 10 / (6 - nextval('tickets')) as once \watch 0.1
\set FETCH_COUNT 5
select id from sales order by id limit 12;
\set FETCH_COUNT 0
\if true
begin;
insert into sale_lines values (13, 60, 'psql', 1) returning *;
savepoint a;
insert into sale_lines values (13, 60, 'psql', 1);
rollback to a;
commit;
\endif
prepare by_id(int) as select name from people where id = $1;
execute by_id(1);
execute by_id(2);
deallocate by_id;
\set ON_ERROR_ROLLBACK on
begin;
select 1/0;
select 'goes on';
end;
set search_path to archive, public;
\d sales
select count(*) from sales;
reset search_path;
create temporary table scratch as select * from people;
select count(*) from scratch;
\dt
explain (costs off) select * from buyers;
declare c cursor with hold for select id from sales order by id;
fetch 3 from c;
move 2 in c;
fetch backward 1 from c;
close c;
listen news;
notify news, 'hello';
select 'done';
