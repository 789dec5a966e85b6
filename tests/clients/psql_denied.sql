\set VERBOSITY sqlstate
truncate sale_lines;
\echo autocommit :SQLSTATE
select count(*) from people;
begin;
update people set name = name;
truncate sale_lines;
\echo transaction :SQLSTATE
select 1;
\echo then :SQLSTATE
rollback;
select count(*) from people;
select 1 as a \; truncate sale_lines \; select 2 as b;
\echo several :SQLSTATE
