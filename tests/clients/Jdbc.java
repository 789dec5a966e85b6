import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;

/** pgjdbc: metadata, batches, server-side prepared statements, cursors, COPY. */
public class Jdbc {
    static Connection connect(String... settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        for (int i = 0; i < settings.length; i += 2) properties.setProperty(settings[i], settings[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + "/" + System.getenv("PGDATABASE"), properties);
    }

    static void show(ResultSet rows) throws SQLException {
        ResultSetMetaData meta = rows.getMetaData();
        int count = 0;
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (int i = 1; i <= meta.getColumnCount(); i++) line.append(rows.getString(i)).append('|');
            // Those of the system are many, and always the same.
            if (line.indexOf("pg_catalog|") < 0 && line.indexOf("information_schema|") < 0) System.out.println(line);
            count++;
        }
        System.out.println(count + " rows");
        rows.close();
    }

    static void metadata(Connection c) throws SQLException {
        DatabaseMetaData m = c.getMetaData();
        System.out.println(m.getDatabaseProductVersion() + " " + m.getDriverVersion() + " " + m.getUserName());
        System.out.println(m.getMaxColumnNameLength() + " " + m.getSQLKeywords().length());
        show(m.getCatalogs());
        show(m.getSchemas());
        show(m.getTableTypes());
        show(m.getTables(null, null, "%", new String[] {"TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "PARTITIONED TABLE"}));
        for (String table : new String[] {"people", "sales", "sale_lines", "measures"}) {
            show(m.getColumns(null, "public", table, "%"));
            show(m.getPrimaryKeys(null, "public", table));
            show(m.getImportedKeys(null, "public", table));
            show(m.getExportedKeys(null, "public", table));
            show(m.getIndexInfo(null, "public", table, false, true));
            show(m.getBestRowIdentifier(null, "public", table, DatabaseMetaData.bestRowSession, true));
            show(m.getVersionColumns(null, "public", table));
            show(m.getTablePrivileges(null, "public", table));
            show(m.getColumnPrivileges(null, "public", table, "%"));
        }
        show(m.getCrossReference(null, "public", "people", null, "public", "sales"));
        show(m.getProcedures(null, null, "%"));
        show(m.getFunctions(null, "archive", "%"));
        show(m.getFunctionColumns(null, "archive", "%", "%"));
        show(m.getUDTs(null, null, "%", null));
        show(m.getTypeInfo());
        show(m.getClientInfoProperties());
    }

    static void work() throws Exception {
        try (Connection c = connect("ApplicationName", "shop")) {
            metadata(c);
            try (PreparedStatement s = c.prepareStatement("select name, born, mood from people where id = ?")) {
                for (int n = 1; n <= 12; n++) { // by a named statement from the fifth on
                    s.setLong(1, 1 + n % 4);
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        System.out.println(r.getString(1) + " " + r.getDate(2) + " " + r.getString(3) + " " + ((PGStatement) s).isUseServerPrepare());
                    }
                }
            }
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("insert into sale_lines values (?, ?, ?, ?)")) {
                for (int n = 10; n < 200; n++) {
                    s.setInt(1, 10); s.setInt(2, n); s.setString(3, "batch"); s.setBigDecimal(4, new java.math.BigDecimal(n));
                    s.addBatch();
                }
                System.out.println(s.executeBatch().length);
            }
            try (Statement s = c.createStatement()) {
                s.setFetchSize(7);
                try (ResultSet r = s.executeQuery("select id, tags, details, number from sales order by id")) {
                    int sum = 0;
                    while (r.next()) sum += r.getInt(1) + ((Object[]) r.getArray(2).getArray()).length;
                    System.out.println(sum);
                }
                s.addBatch("update sales set total = total + 1 where id = 1");
                s.addBatch("update sales set total = total + 1 where id < 4");
                System.out.println(java.util.Arrays.toString(s.executeBatch()));
            }
            Savepoint savepoint = c.setSavepoint("s");
            try (PreparedStatement s = c.prepareStatement("insert into sales (buyer, total) values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                s.setLong(1, 1); s.setDouble(2, 2.5);
                System.out.println(s.executeUpdate());
                try (ResultSet keys = s.getGeneratedKeys()) { keys.next(); System.out.println(keys.getInt("id")); }
            }
            c.rollback(savepoint);
            c.commit();
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                 ResultSet r = s.executeQuery("select id, total, buyer from sales where id < 4 order by id")) {
                r.last();
                r.updateBigDecimal("total", new java.math.BigDecimal("7.00"));
                r.updateRow();
                System.out.println(r.getRow());
            }
            c.commit();
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            c.setReadOnly(true);
            try (Statement s = c.createStatement()) { show(s.executeQuery("show transaction_isolation")); }
            c.commit();
            c.setReadOnly(false);
            c.setAutoCommit(true);
            var copy = ((PGConnection) c).getCopyAPI();
            System.out.println(copy.copyIn("copy measures from stdin (format csv)", new StringReader("2026-06-01,a,1\n2026-06-02,b,2\n")));
            StringWriter out = new StringWriter();
            System.out.println(copy.copyOut("copy (select id, name from people order by id) to stdout", out) + " " + out);
            try (Statement s = c.createStatement()) { s.execute("listen news"); s.execute("notify news, 'hello'"); }
            System.out.println(((PGConnection) c).getNotifications(5000)[0].getParameter());
            c.setSchema("archive");
            try (Statement s = c.createStatement()) { show(s.executeQuery("select count(*) from sales")); System.out.println(c.getSchema()); }
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                s.execute("select pg_sleep(20)");
            } catch (SQLException error) {
                System.out.println(error.getSQLState());
            }
            System.out.println(c.isValid(5));
        }
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            try (Connection c = connect("preferQueryMode", mode, "reWriteBatchedInserts", "true"); Statement s = c.createStatement()) {
                show(s.executeQuery("select count(*), '" + mode + "' from people"));
                try (PreparedStatement p = c.prepareStatement("insert into sale_lines values (11, ?, 'rewritten', 1)")) {
                    for (int n = 0; n < 9; n++) { p.setInt(1, 100 * mode.length() + n); p.addBatch(); }
                    System.out.println(p.executeBatch().length);
                }
            }
        }
    }

    static void attempt(Connection c, String what, String sql) {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
            System.out.println(what + " went through");
        } catch (SQLException error) {
            String message = error.getMessage();
            System.out.println(what + " " + error.getClass().getSimpleName() + " " + error.getSQLState() + " " + message.substring(0, Math.min(34, message.length())));
        }
    }

    static void denied() throws SQLException {
        try (Connection c = connect(); Statement s = c.createStatement()) {
            attempt(c, "autocommit", "truncate sale_lines");
            show(s.executeQuery("select count(*) from people"));
            c.setAutoCommit(false);
            s.execute("update people set name = name");
            attempt(c, "transaction", "truncate sale_lines");
            attempt(c, "then", "select 1");
            c.rollback();
            show(s.executeQuery("select count(*) from people"));
            s.addBatch("update people set name = name");
            s.addBatch("truncate sale_lines");
            s.addBatch("update people set name = name");
            try {
                s.executeBatch();
            } catch (BatchUpdateException error) {
                System.out.println("batch " + error.getClass().getSimpleName() + " " + error.getSQLState());
            }
            c.rollback();
            show(s.executeQuery("select count(*) from people"));
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("work")) work(); else denied();
    }
}
