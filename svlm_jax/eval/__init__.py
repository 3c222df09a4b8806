"""Published benchmarks of streaming and long video, measured on a model that watches streams.

    read (benchmarks/*) -> show what may be seen (protocols) -> ask or listen (interface) -> grade (answers, judge) -> report

One record an item, one folder a row; nothing is skipped without being counted.
"""
