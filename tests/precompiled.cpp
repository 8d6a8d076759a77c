// Empty: it has the precompiled header of the tests made (see CMakeLists.txt).
