"""Published data sets from their own pages: what there is, downloading, unpacking. Law: nothing that was received is run or trusted."""
