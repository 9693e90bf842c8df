# SPDX-License-Identifier: Apache-2.0
# cmake --install build/release [--prefix /usr]: programs, units, man pages and documents where a
# Debian package would put them.

foreach(program postern-proxy postern-identity postern)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()

# lib/, not ${CMAKE_INSTALL_LIBDIR}: systemd reads /usr/lib and /usr/local/lib on every architecture.
# The units name the programs' place, which is known only when --prefix is.
foreach(unit postern-proxy@.service postern-intercept@.service
    postern-intercept-watch@.service postern-identity.service)
  install(CODE "
    set(POSTERN_BINDIR \${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR})
    configure_file(\"${PROJECT_SOURCE_DIR}/deploy/systemd/${unit}.in\"
      \"${PROJECT_BINARY_DIR}/systemd/${unit}\" @ONLY)")
  install(FILES ${PROJECT_BINARY_DIR}/systemd/${unit} DESTINATION lib/systemd/system)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/deploy/systemd/postern.sysusers DESTINATION lib/sysusers.d
  RENAME postern.conf)

install(FILES ${PROJECT_SOURCE_DIR}/docs/man/postern.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${PROJECT_SOURCE_DIR}/docs/man/postern-proxy.8
  ${PROJECT_SOURCE_DIR}/docs/man/postern-identity.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)

install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs
  FILES_MATCHING PATTERN "*.md" PATTERN "man" EXCLUDE)
