module hotswap/loader

go 1.21
