"""One experiment from start to record: prepared, trained, judged, stored; evaluated and compared later."""
