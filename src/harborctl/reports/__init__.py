"""Reports: `.sql` files that are found, parsed, run and rendered.

::

    find.py     a name → the file it stands for
    parse.py    a file → a Report: title, description, typed parameters, one statement
    lexer.py    SQL → pieces, some of which are parameters
    values.py   `-p name=value` → Python values of the declared types
    run.py      a Report and values → columns and batches of rows, as the server writes them
    write.py    columns and batches → bytes of a format. render.py has the text formats, table.py the one for people,
                html.py, parquet.py and xlsx.py theirs; chart.py draws in the terminal, picture.py draws pictures
    output.py   bytes → stdout or a file, whole or not at all

Each step knows only the data of the one before it. Only run.py knows a database, only table.py and chart.py know Rich.
"""
